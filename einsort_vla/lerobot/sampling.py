"""What a flow-matching model is shown, and something else in the place of its own sampling."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from einsort_vla.lerobot.policy import LoadedPolicy

Shown = dict[str, Tensor]
"""images (batch, cameras, 3, H, W) in (-1, 1), image_masks (batch, cameras), tokens and token_masks
(batch, tokens), noise (batch, chunk_size, action), and state (batch, state) but for pi0.5."""


def replace_sampling_(policy: LoadedPolicy, sample: Callable[[Shown], Tensor]) -> None:
    """Let `sample` find the actions, (batch, chunk_size, action); noise is drawn as before."""
    model, config = policy.module.model, policy.module.config

    def sample_actions(
        images: list[Tensor],
        image_masks: list[Tensor],
        tokens: Tensor,
        token_masks: Tensor,
        state: Tensor | None = None,
        noise: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        if noise is None:
            shape = (len(tokens), config.chunk_size, config.max_action_dim)
            noise = model.sample_noise(shape, tokens.device)
        shown = {
            "images": torch.stack(images, 1), "image_masks": torch.stack(image_masks, 1),
            "tokens": tokens, "token_masks": token_masks.bool(), "noise": noise,
        }  # fmt: skip
        return sample(shown if state is None else {**shown, "state": state})

    model.sample_actions = sample_actions
