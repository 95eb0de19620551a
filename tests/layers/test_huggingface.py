"""Transformers models: compressed while loading, saved, loaded again bit for bit, dequantized."""

import copy
import json
import random
import shutil

import pytest
import torch
from torch import nn

pytest.importorskip("transformers")

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTModel,
)

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.errors import (
    CheckpointError,
    MissingDependency,
    NumericsError,
    UsageError,
)
from einsort_vla.huggingface import EinSortConfig, watch_text
from einsort_vla.kernels import decode_fast
from einsort_vla.layers import CompressedLinear, count_backends
from einsort_vla.plan import LayerStatistics
from tests.compressing import compress

TOKENS = torch.arange(12)[None]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=64, attention_bias=True, initializer_range=0.2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def test_watched_while_it_reads(dense, tmp_path):
    """What a text shows of the inputs is what the model's own forward passes have."""
    tokenizer = Tokenizer(WordLevel({"a": 3, "b": 4, "c": 5, "d": 6}, unk_token="a"))
    tokenizer.pre_tokenizer = Whitespace()
    folder = shutil.copytree(dense, tmp_path / "dense")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    words = random.Random(0).choices("abcd", k=1100)
    (tmp_path / "text.txt").write_text(" ".join(words))
    source = DenseFolder(folder)
    statistics = LayerStatistics(source.sha256)
    assert watch_text(source, tmp_path / "text.txt", statistics) == 1024
    assert statistics.n_rows.keys() == source.matrices.keys()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([["abcd".index(w) + 3 for w in words[:1024]]]).view(2, 512)
    name, kept = "model.layers.0.self_attn.q_proj", []
    model.get_submodule(name).register_forward_hook(
        lambda _, inputs, out: (out.retain_grad(), kept.append((inputs[0], out)))[0]
    )
    generator = torch.Generator().manual_seed(0)
    for own in ids[:, None]:
        likely = model(own).logits[0].log_softmax(1)
        chosen = likely.detach().exp().multinomial(1, generator=generator)
        likely.gather(1, chosen).sum().backward()
    rows, gradients = torch.cat([x[0] for x, _ in kept]), torch.cat([y.grad[0] for _, y in kept])
    found = statistics.hessian(name + ".weight")
    weighted = rows * gradients.square().mean(1, keepdim=True)
    torch.testing.assert_close(found.inputs, (weighted.t() @ rows / 1024).detach())
    torch.testing.assert_close(found.outputs, gradients.t() @ gradients / 1024)

    (tmp_path / "text.txt").write_text("a b c")
    with pytest.raises(CheckpointError, match="has 3 tokens; at least 512"):
        watch_text(source, tmp_path / "text.txt", statistics)
    with pytest.raises(CheckpointError, match="cannot be read"):
        watch_text(source, tmp_path / "none.txt", statistics)

    (folder / "generation_config.json").write_text("[1]")
    (tmp_path / "text.txt").write_text(" ".join(words))
    with pytest.raises(CheckpointError, match="cannot be loaded by Transformers"):
        watch_text(source, tmp_path / "text.txt", statistics)

    (tmp_path / "text.txt").write_bytes("Ein Text für Robotér".encode("latin-1"))
    with pytest.raises(CheckpointError, match="is not UTF-8"):
        watch_text(source, tmp_path / "text.txt", statistics)


def with_tokenizer(model, folder):
    tokenizer = Tokenizer(WordLevel({"a": 3, "b": 4}, unk_token="a"))
    tokenizer.pre_tokenizer = Whitespace()
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return DenseFolder(folder)


def test_who_reads_a_text(tmp_path):
    """Encoders with their decoders do, and short memories; models of pictures say so."""
    (tmp_path / "text.txt").write_text("a b " * 300)
    t5 = T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    short = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        vocab_size=64, max_position_embeddings=64,
    )  # fmt: skip
    for model, n_tokens in ((T5ForConditionalGeneration(t5), 512), (LlamaForCausalLM(short), 576)):
        source = with_tokenizer(model, tmp_path / type(model).__name__)
        statistics = LayerStatistics(source.sha256)
        assert watch_text(source, tmp_path / "text.txt", statistics) == n_tokens
        assert all(statistics.saw(name) for name in source.matrices)
    pictures = ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        image_size=28, patch_size=14,
    )  # fmt: skip
    source = with_tokenizer(ViTModel(pictures), tmp_path / "sees")
    with pytest.raises(CheckpointError, match="ViTModel does not read it"):
        watch_text(source, tmp_path / "text.txt", LayerStatistics(source.sha256))


def test_the_backend_is_the_loaders_choice(dense, tmp_path):
    settings = EinSortConfig(rate=0.5, codec="scalar group=16")
    model = AutoModelForCausalLM.from_pretrained(dense, quantization_config=settings)
    model.save_pretrained(tmp_path / "saved")
    compress(dense, tmp_path / "compressed")
    for folder in ("saved", "compressed"):
        settings = EinSortConfig(backend="reference")
        again = AutoModelForCausalLM.from_pretrained(
            tmp_path / folder, quantization_config=settings
        )
        assert count_backends(again) == {"reference": 14}
        assert "reference" not in json.dumps(again.config.quantization_config.to_dict())


def test_what_is_tied_stays_dense_whatever_is_left_out(tmp_path):
    config = LlamaConfig(
        hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=64, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "dense")
    settings = EinSortConfig(rate=0.5, modules_to_not_convert=["o_proj"])
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", quantization_config=settings)
    planned = model.config.quantization_config.plan["tensors"]
    assert planned.keys() == {f"{name}.weight" for name in coded_layers(model)}
    assert len(planned) == 12
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(logits(again), logits(model))


def test_a_weight_that_cannot_be_coded_is_named(dense, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(dense)
    with pytest.raises(NumericsError, match=r"layers.0.*bfloat16 cannot"):
        AutoModelForCausalLM.from_pretrained(dense, quantization_config=EinSortConfig(rate=0))
    model.model.layers[1].mlp.up_proj.weight.data[3, 2] = torch.nan
    model.save_pretrained(tmp_path / "nan")
    with pytest.raises(NumericsError, match=r"layers.1.mlp.up_proj.weight: .* 1 NaN"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "nan", quantization_config=EinSortConfig())


def test_names_of_modules_that_fit_nothing_are_told(dense, caplog):
    settings = EinSortConfig(modules_to_not_convert=["o_proj", "nosuch"])
    AutoModelForCausalLM.from_pretrained(dense, quantization_config=settings)
    told = [own.getMessage() for own in caplog.records if "modules_to_not" in own.getMessage()]
    assert told == ["modules_to_not_convert: LlamaForCausalLM has no 'nosuch'."]
    with pytest.raises(UsageError, match=r"'\(' is no name of a module"):
        EinSortConfig(modules_to_not_convert=["("])


def test_a_vision_language_model(reference_policy, tmp_path):
    torch.manual_seed(0)
    settings = AutoConfig.from_pretrained(reference_policy / "vlm")
    AutoModelForImageTextToText.from_config(settings).save_pretrained(tmp_path / "dense")
    load = AutoModelForImageTextToText.from_pretrained
    model = load(tmp_path / "dense", quantization_config=EinSortConfig(rate=0.75))
    names = coded_layers(model)
    assert any("vision_model" in n for n in names)
    assert any("text_model" in n for n in names)
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(logits(load(tmp_path / "saved")), logits(model))


def logits(model):
    with torch.inference_mode():
        return model(TOKENS).logits


def coded_layers(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, CompressedLinear)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_load_save_reload_dequantize(dense, tmp_path, dtype):
    settings = EinSortConfig(rate=0.6)
    model = AutoModelForCausalLM.from_pretrained(dense, quantization_config=settings, dtype=dtype)
    assert len(coded_layers(model)) == 14
    assert type(model.lm_head) is nn.Linear
    own = AutoModelForCausalLM.from_pretrained(dense, dtype=dtype)
    difference = (logits(model) - logits(own)).float().norm() / logits(own).float().norm()
    assert difference < 0.15  # 6.4 bits a weight

    model.save_pretrained(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())["quantization_config"]
    assert saved["quant_method"] == "einsort"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=dtype)
    assert coded_layers(again).keys() == coded_layers(model).keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert torch.equal(logits(again), logits(model))

    expected = logits(again)
    # What the layers multiply by, to the bit; `decode_fast` is held to `decode` in test_cpu.py.
    weights = {name: decode_fast(layer.compressed) for name, layer in coded_layers(again).items()}
    again.save_pretrained(tmp_path / "saved again")  # its configuration then names the type
    with pytest.raises(UsageError, match="'fp8' is no type of weights"):
        again.dequantize("fp8")
    plain = again.dequantize()
    assert not coded_layers(plain)
    for name, weight in weights.items():
        assert torch.equal(plain.get_submodule(name).weight, weight.to(dtype))
    torch.testing.assert_close(logits(plain), expected)


def test_a_coded_layer_survives_copies_and_changes_of_type(dense):
    model = AutoModelForCausalLM.from_pretrained(
        dense, quantization_config=EinSortConfig(rate=0.7), dtype=torch.float32
    )
    expected, layers = logits(model), coded_layers(model)
    assert torch.equal(logits(copy.deepcopy(model)), expected)
    before = {n: m.compressed.parts["scale"].clone() for n, m in layers.items()}
    half = model.to(torch.bfloat16)
    for name, layer in layers.items():
        assert torch.equal(layer.compressed.parts["scale"], before[name])  # still float16
        assert layer.weight.dtype == torch.bfloat16
    torch.testing.assert_close(logits(half).float(), expected, rtol=0.1, atol=0.1)
    assert torch.equal(logits(model.to(torch.float32)).isfinite(), torch.ones(1, 12, 64).bool())


def test_another_state_is_taken_up(dense):
    """Loading a state into a layer replaces what it had decoded."""
    first, second = (
        AutoModelForCausalLM.from_pretrained(
            dense, quantization_config=EinSortConfig(rate=0.7), dtype=torch.float32
        )
        for _ in range(2)
    )
    expected = logits(first)
    for layer in coded_layers(second).values():
        layer.compressed.parts["scale"].zero_()
        layer._backend = None
    assert not torch.allclose(logits(second), expected)
    second.load_state_dict(first.state_dict())
    assert torch.equal(logits(second), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1.5}, "outside"),
        ({"codec": "curv"}, "Did you mean 'curve'"),
        ({"backend": "fast"}, "nknown backend"),
        ({"bits": 4}, "no setting 'bits'"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(UsageError, match=message):
        EinSortConfig(**settings)


def test_a_backend_that_is_not_there_is_told_before_a_weight_is_read(dense, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MissingDependency, match="--backend cuda"):
        AutoModelForCausalLM.from_pretrained(
            dense, quantization_config=EinSortConfig(rate=0.5, backend="cuda")
        )


def test_a_model_without_end_is_refused_before_it_is_built(dense, tmp_path):
    folder = shutil.copytree(dense, tmp_path / "endless")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2**32}))
    with pytest.raises(CheckpointError, match=r"endless: config\.json .*num_hidden_layers is 4294"):
        AutoModelForCausalLM.from_pretrained(folder, quantization_config=EinSortConfig())


def test_a_code_that_must_see_the_weights_is_refused(dense):
    with pytest.raises(UsageError, match="plans by the weights, which are not read yet"):
        AutoModelForCausalLM.from_pretrained(
            dense, quantization_config=EinSortConfig(rate=0.5, codec="network")
        )
