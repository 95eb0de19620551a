"""Tiny policies of every family: saved by LeRobot, compressed, loaded, and run."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

pytest.importorskip("lerobot")

import lerobot_policy_einsort  # noqa: F401
from lerobot.policies.factory import get_policy_class

from einsort_vla.checkpoint import (
    DenseFolder,
    read_folder,
)
from einsort_vla.layers import CompressedLinear
from einsort_vla.lerobot import quiet_lerobot
from tests.compressing import compress
from tests.policies.tiny_policies import FAMILIES, act_once

LEFT_DENSE = {
    "act": ("vae_encoder", "attn.out_proj"),
    "pi0": ("lm_head",),
    "pi05": ("lm_head",),
    "pi0_fast": ("lm_head",),
    "eo1": ("lm_head",),
    "groot": ("lm_head",),
    "vla_jepa": ("lm_head",),
}
"""Parts of the names of linear layers that are not coded; why: einsort_vla/families."""


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_compressed_and_loaded(family, tmp_path):
    with quiet_lerobot(), FAMILIES[family](tmp_path) as build:
        torch.manual_seed(0)
        policy = build()
        for parameter in policy.parameters():  # random biases and norms: all of it must arrive
            parameter.data += 0.02 * torch.randn_like(parameter)
        policy.save_pretrained(tmp_path / "dense")
        compress(tmp_path / "dense", tmp_path / "new", 0.4)
        loaded = get_policy_class(f"einsort_{family}").from_pretrained(tmp_path / "new")
        expected, found = act_once(policy), act_once(loaded)

    linear = {f"{n}.weight" for n, m in policy.named_modules() if isinstance(m, nn.Linear)}
    coded = {f"{n}.weight" for n, m in loaded.named_modules() if isinstance(m, CompressedLinear)}
    assert coded == DenseFolder(tmp_path / "dense").matrices.keys()
    left = {n for n in linear if any(part in n for part in LEFT_DENSE.get(family, ()))}
    assert linear - coded == left
    dropped = read_folder(tmp_path / "new").dropped.keys()
    for name, tensor in policy.state_dict().items():
        if name not in coded | dropped and name in loaded.state_dict():
            assert torch.equal(loaded.state_dict()[name], tensor), name
    assert (found - expected).norm() < 0.05 * expected.norm()  # 9.6 bits a weight
    assert not torch.equal(found, expected)


def test_the_first_layout_of_xvla_files(tmp_path):
    """Public X-VLA files have Microsoft's names, and one projection transposed."""
    new_names = {
        ".vlm.multi_modal_projector.image_proj_norm.": ".vlm.image_proj_norm.",
        ".vlm.language_model.": ".vlm.language_model.model.",
        ".vlm.multi_modal_projector.image_position_embed.": ".vlm.image_pos_embed.",
    }
    projection = "model.vlm.multi_modal_projector.image_projection.weight"
    with quiet_lerobot(), FAMILIES["xvla"](tmp_path) as build:
        torch.manual_seed(0)
        policy = build()
        policy.save_pretrained(tmp_path / "dense")
        state = {}
        for name, tensor in load_file(tmp_path / "dense" / "model.safetensors").items():
            for new, old in new_names.items():
                name = name.replace(new, old)
            state[name] = tensor
        state["model.vlm.image_projection"] = state.pop(projection).t().contiguous()
        save_file(state, tmp_path / "dense" / "model.safetensors")
        compress(tmp_path / "dense", tmp_path / "new", 0.4)
        loaded = get_policy_class("einsort_xvla").from_pretrained(tmp_path / "new")
        expected, found = act_once(policy), act_once(loaded)
    assert torch.equal(loaded.state_dict()[projection], policy.state_dict()[projection])
    assert (found - expected).norm() < 0.05 * expected.norm()
