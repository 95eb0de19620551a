"""Transformers models on disk: compressed shard by shard, loaded by Transformers, checked by us."""

import json

import pytest
import torch

pytest.importorskip("transformers")

import transformers
from safetensors.torch import load_file, save_file

from einsort_vla.checkpoint import apply_patch, manifest, read_folder, write_patch
from einsort_vla.codec import Codec, decode
from einsort_vla.errors import CheckpointError
from einsort_vla.huggingface import EinSortConfig
from einsort_vla.layers import CompressedLinear
from tests.compressing import compress, plan

TEXT = {
    "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
SIGLIP = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 28, "patch_size": 14,
}  # fmt: skip
QWEN = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]}


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(attention_bias=True, **TEXT))


def smolvlm():
    config = transformers.SmolVLMConfig(
        text_config={"model_type": "llama", **TEXT}, vision_config=SIGLIP, scale_factor=2,
        image_token_id=95, pad_token_id=0,
    )  # fmt: skip
    return transformers.SmolVLMForConditionalGeneration(config)


def paligemma():
    config = transformers.PaliGemmaConfig(
        text_config={"model_type": "gemma", "head_dim": 16, **TEXT},
        vision_config={"model_type": "siglip_vision_model", "projection_dim": 48, **SIGLIP},
        image_token_index=95, projection_dim=48,
    )  # fmt: skip
    return transformers.PaliGemmaForConditionalGeneration(config)


def qwen2_5_vl():
    config = transformers.Qwen2_5_VLConfig(
        text_config={**TEXT, "rope_parameters": ROPE},
        vision_config={**QWEN, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 48},
        image_token_id=95,
    )
    return transformers.Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl():
    config = transformers.Qwen3VLConfig(
        text_config={**TEXT, "head_dim": 12, "rope_parameters": ROPE},
        vision_config={
            **QWEN, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 48,
            "deepstack_visual_indexes": [0], "num_position_embeddings": 16,
        },
        image_token_id=95, tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.Qwen3VLForConditionalGeneration(config)


def florence2():
    config = transformers.Florence2Config(
        text_config={
            "model_type": "bart", "d_model": 48, "encoder_layers": 2, "decoder_layers": 2,
            "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64, "vocab_size": 96, "pad_token_id": 0,
        },
        vision_config={
            "embed_dim": [16, 32], "num_heads": [2, 2], "num_groups": [2, 2], "depths": [1, 1],
            "patch_size": [7, 3], "patch_stride": [4, 2], "patch_padding": [3, 1],
            "patch_prenorm": [False, True], "window_size": 4, "projection_dim": 48,
        },
        image_token_id=95,
    )  # fmt: skip
    return transformers.Florence2ForConditionalGeneration(config)


def logits(model):
    tokens = torch.arange(3, 15)[None]
    given = {"decoder_input_ids": tokens[:, :4]} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        return model.eval()(input_ids=tokens, **given).logits


@pytest.mark.parametrize(
    "build", [llama, smolvlm, paligemma, qwen2_5_vl, qwen3_vl, florence2], ids=lambda b: b.__name__
)
def test_compressed_on_disk_and_loaded_by_transformers(build, tmp_path):
    torch.manual_seed(0)
    model = build()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2 and "embed" not in name:
            parameter.data.normal_(std=0.2)
    model.save_pretrained(tmp_path / "dense", max_shard_size="60KB")
    assert (tmp_path / "dense" / "model.safetensors.index.json").is_file()
    made = compress(tmp_path / "dense", tmp_path / "new")

    loaded = type(model).from_pretrained(tmp_path / "new")
    coded = {n: m for n, m in loaded.named_modules() if isinstance(m, CompressedLinear)}
    linear = {n for n, m in model.named_modules() if type(m) is torch.nn.Linear}
    assert linear - coded.keys() == {"lm_head"}
    assert len(made.plan.tensors) == len(coded)
    assert made.plan.codec == Codec("curve")
    specs = [layer.compressed.spec for layer in coded.values()]
    assert all(spec.rotated for spec in specs if spec.form == "curve")
    for name, tensor in model.state_dict().items():
        if name.removesuffix(".weight") not in coded:
            assert torch.equal(loaded.state_dict()[name], tensor), name
    for name, layer in coded.items():
        weight = model.get_submodule(name).weight
        assert (decode(layer.compressed) - weight).norm() < 0.02 * weight.norm(), name  # 8 bits
    expected, found = logits(model), logits(loaded)
    assert (found - expected).norm() < 0.1 * expected.norm()
    assert len(read_folder(tmp_path / "new").coded) == len(coded)

    settings = EinSortConfig(rate=0.5)
    on_load = type(model).from_pretrained(tmp_path / "dense", quantization_config=settings)
    names = {n for n, m in on_load.named_modules() if isinstance(m, CompressedLinear)}
    assert names == coded.keys()
    on_load.save_pretrained(tmp_path / "saved")
    again = type(model).from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(again), logits(on_load))


def test_layers_with_transposed_weights_are_coded(tmp_path):
    """GPT-2's Conv1D, on disk and on load; dequantized, they are Conv1D again."""
    config = transformers.GPT2Config(n_embd=48, n_layer=1, n_head=2, vocab_size=64, n_positions=32)
    torch.manual_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    model.save_pretrained(tmp_path / "dense")
    made = compress(tmp_path / "dense", tmp_path / "new")
    assert made.plan.tensors["transformer.h.0.mlp.c_fc.weight"].shape == (192, 48)
    settings = {"quantization_config": EinSortConfig(rate=0.5)}
    for source, more in (("new", {}), ("dense", settings)):
        loaded = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / source, **more)
        coded = loaded.transformer.h[0].mlp.c_fc.compressed
        dense = model.transformer.h[0].mlp.c_fc.weight.t()
        assert (decode(coded) - dense).norm() < 0.02 * dense.norm()
        expected = logits(loaded)
        assert (expected - logits(model)).norm() < 0.1 * logits(model).norm()
        loaded.dequantize().save_pretrained(tmp_path / f"plain {source}")
        plain = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / f"plain {source}")
        torch.testing.assert_close(logits(plain), expected)


def change(folder, config=None, tensors=None):
    """Edit a model in place: fields of its config.json, and what its weight file holds."""
    if config:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    if tensors:
        path = folder / "model.safetensors"
        save_file(tensors(load_file(path)), path, metadata={"format": "pt"})


def renamed(old, new):
    return lambda stored: {name.replace(old, new): own for name, own in stored.items()}


def emptied(stored):
    return {n: torch.empty(0) if "mlp" in n else own for n, own in stored.items()}


SCALED = {"model.layers.0.mlp.up_proj.weight_scale_inv": torch.ones(1, 1)}
UNUSUAL = [
    ({}, renamed("model.", "model._orig_mod."), "wrapper of torch.compile"),
    ({}, renamed("up_proj.weight", "up_proj.qweight"), r"up_proj.qweight \(GPTQ or AWQ\)"),
    ({}, lambda stored: stored | SCALED, r"up_proj.weight_scale_inv \(FP8\)"),
    ({}, lambda s: {n: t.char() if "o_proj.w" in n else t for n, t in s.items()}, "integers"),
    ({}, emptied, "5 more: these are the placeholders of DeepSpeed"),
    ({}, renamed("model.", "net."), "holds none of the 14 linear layers of LlamaForCausalLM"),
    ({"intermediate_size": 64}, None, r"\(48, 80\) in the weight file and \(48, 64\) by config"),
    ({"architectures": []}, None, "must name the one class"),
    ({"architectures": ["LlamaModel", "LlamaForCausalLM"]}, None, "must name the one class"),
    ({"architectures": ["set_seed"]}, None, "no model class 'set_seed'"),
    ({"num_hidden_layers": 10**9}, None, "num_hidden_layers is 1000000000; models have at most"),
    ({"num_hidden_layers": 30_000}, None, "describes a model of more than"),
    ({"num_labels": 10**9}, None, "num_labels is 1000000000"),
    ({"num_labels": 10**6}, None, "num_labels is 1000000; models have at most 65536"),
    ({"architectures": ["PreTrainedModel"]}, None, "no model class 'PreTrainedModel'"),
    ({"transformers_weights": "../x.safetensors"}, None, "names weights of its own"),
    ({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, None, "is never run"),
]


@pytest.mark.parametrize(("config", "tensors", "message"), UNUSUAL, ids=range(len(UNUSUAL)))
def test_what_cannot_be_coded_is_told_before_work(config, tensors, message, tmp_path):
    llama().save_pretrained(tmp_path / "dense")
    change(tmp_path / "dense", config, tensors)
    (tmp_path / "dense" / "own.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(CheckpointError, match=message):
        plan(tmp_path / "dense")


def test_models_without_anything_to_code(tmp_path):
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])
    transformers.ResNetModel(config).save_pretrained(tmp_path / "pictures")
    with pytest.raises(CheckpointError, match="ResNetModel has no linear layer"):
        plan(tmp_path / "pictures")
    (tmp_path / "pictures" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"is an adapter.*merge_and_unload"):
        plan(tmp_path / "pictures")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("model.layers.7.mlp.up_proj.weight", [80, 48], "is none of its linear layers"),
        ("model.embed_tokens.weight", [96, 48], "is none of its linear layers"),
        ("model.layers.0.mlp.up_proj", [80, 48], "is none of its linear layers"),
        ("model.layers.0.mlp.up_proj.weight", [2**20, 2**20], r"it has shape \(80, 48\) there"),
        ("lm_head.weight", [96, 48], "lacks the tensor lm_head.weight_indices"),
    ],
)
def test_a_plan_of_a_stranger(name, shape, message, tmp_path):
    """It is held against the model, and the files against it, before anything is made."""
    llama().save_pretrained(tmp_path / "dense")
    compress(tmp_path / "dense", tmp_path / "new", codec=Codec("scalar"))
    method = json.loads((tmp_path / "new" / "config.json").read_text())["quantization_config"]
    spec = {"form": "scalar", "bits": 4}
    method["plan"]["tensors"][name] = {"spec": spec, "shape": shape, "distortion": 0.01}
    change(tmp_path / "new", {"quantization_config": method})
    with pytest.raises(CheckpointError, match=message):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "new")
    change(tmp_path / "new", {"quantization_config": {"quant_method": "einsort"}})
    with pytest.raises(CheckpointError, match="has no plan"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "new")


def test_what_save_pretrained_wrote_is_read_and_checked(tmp_path):
    qwen2_5_vl().save_pretrained(tmp_path / "dense")  # its names on disk are others than in it
    load = transformers.AutoModelForImageTextToText.from_pretrained
    model = load(tmp_path / "dense", quantization_config=EinSortConfig(rate=0.6))
    model.save_pretrained(tmp_path / "saved", max_shard_size="40KB")
    found = read_folder(tmp_path / "saved")
    assert not found.has_fingerprints
    layers = {n: m for n, m in model.named_modules() if isinstance(m, CompressedLinear)}
    for path, layer in layers.items():
        coded = found.coded[f"{path}.weight"]
        assert torch.equal(decode(coded), decode(layer.compressed)), path
    load(tmp_path / "saved", quantization_config=EinSortConfig(backend="cpu")).save_pretrained(
        tmp_path / "other"
    )
    write_patch(tmp_path / "other", tmp_path / "saved", tmp_path / "patch")
    apply_patch(tmp_path / "other", tmp_path / "patch", tmp_path / "patched")
    patched = read_folder(tmp_path / "patched")  # with a manifest
    assert patched.coded.keys() == found.coded.keys()
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    planned = config["quantization_config"]["plan"]["tensors"]
    planned[max(planned)]["shape"] = [2**20, 2**20]
    change(tmp_path / "patched", {"quantization_config": config["quantization_config"]})
    manifest.write(tmp_path / "patched")
    with pytest.raises(CheckpointError, match=r"config.json: the plan in it is for \d+ weights"):
        read_folder(tmp_path / "patched")
    shard = max((tmp_path / "saved").glob("*.safetensors"))
    save_file({n: t[:1] if "_words" in n else t for n, t in load_file(shard).items()}, shard)
    with pytest.raises(CheckpointError, match="the plan says"):
        read_folder(tmp_path / "saved")


def test_what_is_not_ours_is_refused(tmp_path):
    model = llama()
    model.save_pretrained(tmp_path / "dense")
    config = json.loads((tmp_path / "dense" / "config.json").read_text())

    def with_config(change):
        (tmp_path / "dense" / "config.json").write_text(json.dumps({**config, **change}))

    with_config({"quantization_config": {"quant_method": "gptq"}})
    with pytest.raises(CheckpointError, match=r"already compressed \(gptq\)"):
        plan(tmp_path / "dense")
    with_config({"model_type": "no_such_model"})
    with pytest.raises(CheckpointError, match="holds no model that the installed Transformers"):
        plan(tmp_path / "dense")
    with_config({"architectures": ["NoSuchModel"]})
    with pytest.raises(CheckpointError, match="NoSuchModel"):
        plan(tmp_path / "dense")


@pytest.mark.parametrize("name", ["kernels-community/mine", "flash_attention_2"])
def test_attention_on_the_hub_is_not_fetched(name, tmp_path, monkeypatch):
    """As if the package kernels were installed, by which Transformers runs code of the hub."""
    from transformers import modeling_utils
    from transformers.integrations import hub_kernels

    fetched = []
    monkeypatch.setattr(hub_kernels, "_kernels_available", True)
    monkeypatch.setattr(hub_kernels, "get_kernel", fetched.append)
    monkeypatch.setattr(modeling_utils, "is_kernels_available", lambda *_: True)
    llama().save_pretrained(tmp_path / "dense")
    change(tmp_path / "dense", {"attn_implementation": name, "dtype": "bfloat16"})
    with pytest.raises(CheckpointError, match="no model that the installed Transformers"):
        plan(tmp_path / "dense")
    assert fetched == []
