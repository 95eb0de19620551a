"""SmolVLA. Its parts are LeRobot's own code, but for what graphs cannot hold or hold badly.

Whatever the model computes in, float32 goes in and comes out, and the flow is summed in it.
"""

from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from einsort_vla.families.family import PRECISIONS, TABLES, UNUSED, Export, Family, Part, Prefix
from einsort_vla.families.flow import (
    cache_of,
    embedded_already,
    example_inputs,
    flow_parts,
    keys_and_values,
)

JOINT = "vlm_with_expert"


def _set_precision(policy: Any, dtype: torch.dtype) -> None:
    """Let backbone and expert compute in a type, in place; what is around them stays float32."""
    policy.model.get_submodule(JOINT).to(dtype)


def _parts(policy: Any, batch: int) -> list[Part]:
    """See `Export`."""
    model, config = policy.model, policy.config
    backbone = model.vlm_with_expert.vlm.model
    backbone.vision_model = _WholeImages(backbone.vision_model)
    width, height = config.resize_imgs_with_padding
    shown = example_inputs(config, batch, height, width)
    read = ("image_masks", "tokens", "token_masks", "state")
    return flow_parts(model, JOINT, _read_prefix, _denoise_step, shown, read)


def _read_prefix(
    model: Any,
    images: Tensor,
    image_masks: Tensor,
    tokens: Tensor,
    token_masks: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """What the action expert reads, (layers, batch, heads, tokens, width) keys and values."""
    from lerobot.policies.smolvla.modeling_smolvla import make_att_2d_masks

    joint = model.get_submodule(JOINT)
    with embedded_already(joint), _rotary_by_concatenation():
        embeddings, mask, attention = model.embed_prefix(
            images.unbind(1), image_masks.unbind(1), tokens, token_masks, state=state
        )
        _, cache = joint.forward(
            attention_mask=make_att_2d_masks(mask, attention),
            position_ids=torch.cumsum(mask, dim=1) - 1,
            past_key_values=None,
            inputs_embeds=[embeddings, None],
            use_cache=True,
        )
    return *keys_and_values(cache), mask


def _denoise_step(
    model: Any, noisy_actions: Tensor, time: Tensor, prefix_mask: Tensor, keys: Tensor,
    values: Tensor,
) -> Tensor:  # fmt: skip
    cache = cache_of(keys, values, model.get_submodule(JOINT).vlm.dtype)
    with _rotary_by_concatenation():
        return model.denoise_step(prefix_mask, cache, noisy_actions, time)


class _WholeImages(nn.Module):
    """Transformers' vision tower for pictures without padding: positions do not depend on masks.

    Its own code finds them by comparing fractions, which ONNX Runtime rounds otherwise.
    """

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.embeddings, self.encoder = tower.embeddings, tower.encoder
        self.post_layernorm, self.patch_size = tower.post_layernorm, tower.patch_size

    @property
    def dtype(self) -> torch.dtype:
        return self.embeddings.patch_embedding.weight.dtype

    def forward(self, pixel_values: Tensor, patch_attention_mask: None = None) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        patches = self.embeddings.patch_embedding(pixel_values)
        positions = self.embeddings.position_embedding(self._position_ids(patches))
        hidden = patches.flatten(2).transpose(1, 2) + positions
        encoded = self.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
        return BaseModelOutput(last_hidden_state=self.post_layernorm(encoded))

    def _position_ids(self, patches: Tensor) -> Tensor:
        """(patches,) of a picture: rows and columns spread over those of the table."""
        side = self.embeddings.num_patches_per_side
        rows, columns = (
            torch.tensor([k * side // n for k in range(n)], device=patches.device)
            for n in patches.shape[2:]
        )
        return (rows[:, None] * side + columns).flatten()


def _rotary_by_concatenation() -> AbstractContextManager[Any]:
    """Within, rotary embeddings do not write into slices, which become one scatter each."""
    from lerobot.policies.smolvla import smolvlm_with_expert

    return mock.patch.object(smolvlm_with_expert, "apply_rope", _rotate_positions)


def _rotate_positions(x: Tensor, positions: Tensor, max_wavelength: int = 10_000) -> Tensor:
    """(batch, tokens, heads, width), alike; in float32."""
    half = x.shape[-1] // 2
    exponents = (2.0 / x.shape[-1]) * torch.arange(half, dtype=torch.float32, device=x.device)
    radians = positions[..., None].float() / max_wavelength**exponents
    sine, cosine = radians.sin()[..., None, :], radians.cos()[..., None, :]
    first, second = x.float().split(half, dim=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return torch.cat(turned, dim=-1).to(x.dtype)


SMOLVLA = Family(
    "smolvla",
    dense=TABLES,
    dropped={"*lm_head*": UNUSED},
    backbone="vlm_model_name",
    settings={"load_vlm_weights": False},
    prefix=Prefix(JOINT),
    export=Export(_parts, _set_precision, PRECISIONS, "num_steps"),
)
