"""Tiny policies of every family that can be built offline: saved by LeRobot, compressed, loaded."""

import contextlib
import importlib
from unittest import mock

import pytest
import torch
from torch import nn

pytest.importorskip("lerobot")

import lerobot_policy_einsort  # noqa: F401
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.policies.factory import get_policy_class

from einsort_vla.checkpoint import (
    DenseFolder,
    compress_folder,
    compressible_shapes,
    plan_folder,
    read_folder,
)
from einsort_vla.layers import CompressedLinear
from policies.lerobot_adapter import quiet_lerobot

PICTURE_PX = 56
FEATURES = {
    "input_features": {
        "observation.images.cam": PolicyFeature(FeatureType.VISUAL, (3, PICTURE_PX, PICTURE_PX)),
        "observation.state": PolicyFeature(FeatureType.STATE, (8,)),
    },
    "output_features": {"action": PolicyFeature(FeatureType.ACTION, (7,))},
    "device": "cpu",
    "push_to_hub": False,
}


def tiny_gemma(module):
    """pi0's sizes are fixed in its module: smaller ones, while a policy is built."""
    paligemma, expert = (
        module.PaliGemmaForConditionalGenerationWithPiGemma, module.PiGemmaForCausalLM
    )  # fmt: skip
    vocabulary = 512

    def small_paligemma(config):
        vision, text = config.vision_config, config.text_config
        vision.hidden_size, vision.intermediate_size, vision.patch_size = 32, 64, 14
        vision.num_hidden_layers = vision.num_attention_heads = 2
        vision.projection_dim = config.projection_dim = text.hidden_size
        text.vocab_size = config._vocab_size = vocabulary
        config.image_token_index = config.image_token_id = vocabulary - 1
        text.pad_token_id = 0
        return paligemma(config=config)

    def small_expert(config):
        config.vocab_size, config.pad_token_id = vocabulary, 0
        return expert(config=config)

    def small_widths(variant):
        return module.GemmaConfig(
            width=64 if variant == "gemma_2b" else 32, depth=2, mlp_dim=128, num_heads=8,
            num_kv_heads=1, head_dim=16,
        )  # fmt: skip

    stack = contextlib.ExitStack()
    for name, value in [
        ("PaliGemmaForConditionalGenerationWithPiGemma", small_paligemma),
        ("PiGemmaForCausalLM", small_expert),
        ("get_gemma_config", small_widths),
    ]:
        stack.enter_context(mock.patch.object(module, name, value))
    return stack


def build(family):
    """A dense policy and the context in which one like it can be built."""
    module = importlib.import_module(f"lerobot.policies.{family}.modeling_{family}")
    configuration = importlib.import_module(f"lerobot.policies.{family}.configuration_{family}")
    if family == "act":
        config = configuration.ACTConfig(
            pretrained_backbone_weights=None, dim_model=32, n_heads=2, dim_feedforward=48,
            n_encoder_layers=2, n_vae_encoder_layers=1, chunk_size=8, n_action_steps=8, **FEATURES,
        )  # fmt: skip
        return module.ACTPolicy(config), contextlib.nullcontext()
    name = family.upper()
    config = getattr(configuration, f"{name}Config")(
        chunk_size=8, n_action_steps=8, num_inference_steps=3,
        image_resolution=(PICTURE_PX, PICTURE_PX), **FEATURES,
    )  # fmt: skip
    with tiny_gemma(module):
        policy = getattr(module, f"{name}Policy")(config)
    return policy, tiny_gemma(module)


def actions(policy):
    generator = torch.Generator().manual_seed(0)
    batch = {
        "observation.images.cam": torch.rand(1, 3, PICTURE_PX, PICTURE_PX, generator=generator),
        "observation.state": torch.rand(1, 8, generator=generator),
        "observation.language.tokens": torch.arange(12)[None],
        "observation.language.attention_mask": torch.ones(1, 12, dtype=torch.bool),
    }
    torch.manual_seed(0)  # of the flow's noise
    with torch.inference_mode():
        return policy.eval().predict_action_chunk(batch)


@pytest.mark.parametrize("family", ["act", "pi0", "pi05"])
def test_saved_compressed_and_loaded(family, tmp_path):
    with quiet_lerobot():
        torch.manual_seed(0)
        policy, building = build(family)
        for parameter in policy.parameters():  # random biases and norms: all of it must arrive
            parameter.data += 0.02 * torch.randn_like(parameter)
        policy.save_pretrained(tmp_path / "dense")
        compress_folder(
            tmp_path / "dense", tmp_path / "new", plan_folder(tmp_path / "dense", 0.4, "leader")
        )
        with building:
            loaded = get_policy_class(f"einsort_{family}").from_pretrained(tmp_path / "new")

    linear = {f"{n}.weight" for n, m in policy.named_modules() if isinstance(m, nn.Linear)}
    coded = {f"{n}.weight" for n, m in loaded.named_modules() if isinstance(m, CompressedLinear)}
    assert coded == compressible_shapes(DenseFolder(tmp_path / "dense")).keys()
    left = {
        "act": {n for n in linear if "vae_encoder" in n or "attn.out_proj" in n},
        "pi0": {n for n in linear if "lm_head" in n},
        "pi05": {n for n in linear if "lm_head" in n},
    }[family]
    assert linear - coded == left
    dropped = read_folder(tmp_path / "new").dropped.keys()
    assert dropped == ({n for n in left if "lm_head" in n} & set(policy.state_dict()))

    for name, tensor in loaded.state_dict().items():
        if name in policy.state_dict():
            assert torch.equal(tensor, policy.state_dict()[name]), name
    expected, found = actions(policy), actions(loaded)
    assert (found - expected).norm() < 0.05 * expected.norm()  # 9.6 bits a weight
    assert not torch.equal(found, expected)
