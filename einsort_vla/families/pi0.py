"""pi0. The parts of pi0 and pi0.5 are LeRobot's own code; float32 goes in and comes out."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from einsort_vla.families.family import TABLES, UNUSED, Export, Family, Part, Prefix
from einsort_vla.families.flow import (
    cache_of,
    embedded_already,
    example_inputs,
    flow_parts,
    keys_and_values,
)

JOINT = "paligemma_with_expert"
# What LeRobot keeps in float32 beside bfloat16, for accuracy.
_KEPT_FLOAT32 = ("vision_tower", "multi_modal_projector", "layernorm", "norm")


def _set_precision(policy: Any, dtype: torch.dtype) -> None:
    """Let the model compute in a type, in place."""
    joint = policy.model.get_submodule(JOINT)
    joint.to(dtype)
    for name, module in joint.named_modules():
        if name.rpartition(".")[2].endswith(_KEPT_FLOAT32):
            module.float()


def _parts(policy: Any, batch: int) -> list[Part]:
    """See `Export`; pi0 reads the state in each step, pi0.5 among its words."""
    model, config = policy.model, policy.config
    shown = example_inputs(config, batch, *config.image_resolution)
    states = ("state",) if hasattr(model, "state_proj") else ()
    read = ("image_masks", "tokens", "token_masks")
    return flow_parts(model, JOINT, _read_prefix, _denoise_step, shown, read, states)


def _read_prefix(
    model: Any, images: Tensor, image_masks: Tensor, tokens: Tensor, token_masks: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values of pictures and words, and which of them count."""
    from lerobot.policies.pi0.modeling_pi0 import make_att_2d_masks, prepare_attention_masks_4d

    joint = model.get_submodule(JOINT)
    with embedded_already(joint):
        embeddings, mask, attention = model.embed_prefix(
            images.unbind(1), image_masks.unbind(1), tokens, token_masks
        )
    joint.paligemma.model.language_model.config._attn_implementation = "eager"
    _, cache = joint.forward(
        attention_mask=prepare_attention_masks_4d(make_att_2d_masks(mask, attention)),
        position_ids=torch.cumsum(mask, dim=1) - 1,
        past_key_values=None,
        inputs_embeds=[embeddings, None],
        use_cache=True,
    )
    return *keys_and_values(cache), mask


def _denoise_step(
    model: Any, noisy_actions: Tensor, time: Tensor, prefix_mask: Tensor, keys: Tensor,
    values: Tensor, state: Tensor | None = None,
) -> Tensor:  # fmt: skip
    own = model.get_submodule(JOINT).gemma_expert.model.layers[0].self_attn
    cache = cache_of(keys, values, own.q_proj.weight.dtype)
    states: Sequence[Tensor] = [] if state is None else [state]
    return model.denoise_step(*states, prefix_mask, cache, noisy_actions, time)


_HEAD = "*paligemma_with_expert.paligemma.lm_head.*"
PI0 = Family(
    "pi0",
    dense={**TABLES, _HEAD: "the look-up table, stored as the head tied to it"},
    dropped={_HEAD: UNUSED, "*gemma_expert.lm_head.*": UNUSED},
    tied={_HEAD: "*paligemma.model.language_model.embed_tokens.weight"},
    prefix=Prefix(JOINT, "lerobot.policies.pi0.modeling_pi0"),
    # The activations go beyond float16.
    export=Export(_parts, _set_precision, ("bfloat16", "float32"), "num_inference_steps"),
)
