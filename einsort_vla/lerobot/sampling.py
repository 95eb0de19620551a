"""What a flow-matching model is shown, and something else in the place of its own sampling."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from einsort_vla.lerobot.policy import LoadedPolicy

Shown = dict[str, Tensor]
"""images (batch, cameras, 3, H, W) in (-1, 1), image_masks (batch, cameras), tokens and token_masks
(batch, tokens), state (batch, state), noise (batch, chunk_size, action)."""


def replace_sampling_(policy: LoadedPolicy, sample: Callable[[Shown], Tensor]) -> None:
    """Let `sample` find the actions, (batch, chunk_size, action), from noise that is drawn as ever."""
    model, config = policy.module.model, policy.module.config

    def sample_actions(
        images: list[Tensor],
        image_masks: list[Tensor],
        tokens: Tensor,
        token_masks: Tensor,
        state: Tensor,
        noise: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        if noise is None:
            shape = (len(state), config.chunk_size, config.max_action_dim)
            noise = model.sample_noise(shape, state.device)
        return sample({
            "images": torch.stack(images, 1), "image_masks": torch.stack(image_masks, 1),
            "tokens": tokens, "token_masks": token_masks.bool(), "state": state,
            "noise": noise,
        })  # fmt: skip

    model.sample_actions = sample_actions
