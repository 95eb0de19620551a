"""Transformers models on disk: compressed shard by shard, loaded by Transformers, checked by us."""

import json

import pytest
import torch

pytest.importorskip("transformers")

import transformers

from einsort_vla.checkpoint import read_folder
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
    assert made.plan.codec == Codec("leader")  # as it was asked for, though all are rotated
    assert all(layer.compressed.spec.rotated for layer in coded.values())
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
