"""The training loss: flow matching with a shared prefix, and where the things are."""

from typing import Any

import torch
from torch import Tensor, nn

PLACE_UNIT_M = 0.1


class PlaceHead(nn.Module):
    """Reads target and goal position from the state token before the last backbone layer.

    It exists in training only. Without it a policy learns the mean place of each task from the
    sentence and hardly looks: a displacement of a few centimetres moves the flow loss little.
    """

    def __init__(self, policy: Any) -> None:
        super().__init__()
        width = policy.model.vlm_with_expert.config.text_config.hidden_size
        self.read = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 128), nn.GELU(), nn.Linear(128, 6)
        )
        self._hidden: Tensor | None = None
        last = policy.model.vlm_with_expert.get_vlm_model().text_model.layers[-1]
        last.input_layernorm.register_forward_pre_hook(self._keep)

    def _keep(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0][:, -1]  # (n, width): the state token closes the prefix

    def loss(self, places: Tensor) -> Tensor:
        """Huber loss per sample, (n, 6), of the last prefix pass against (n, 6) metres."""
        assert self._hidden is not None
        predicted = self.read(self._hidden)
        return nn.functional.smooth_l1_loss(
            predicted, places / PLACE_UNIT_M, reduction="none", beta=0.2
        )


def flow_loss(
    model: Any,
    pictures: Tensor,
    tokens: Tensor,
    mask: Tensor,
    state: Tensor,
    actions: Tensor,
    n_draws: int,
) -> Tensor:
    """Squared velocity error, (n * n_draws, chunk_size, 7).

    Equal to `VLAFlowMatching.forward`, with the prefix computed once for `n_draws` pairs of noise
    and time, which then cost the small expert alone.

    Args:
        model: `SmolVLAPolicy.model`.
        pictures: (n, cameras, 3, H, W) in [0, 1].
        tokens, mask: (n, language_tokens).
        state: (n, 8); actions: (n, chunk_size, 7), both normalized.
    """
    from lerobot.policies.common.vla_utils import make_att_2d_masks

    n = len(state)
    present = torch.ones(n, dtype=torch.bool, device=state.device)
    views = list((pictures * 2 - 1).unbind(1))
    prefix, pad, attention = model.embed_prefix(
        views, [present] * len(views), tokens, mask, state=state
    )
    _, cache = model.vlm_with_expert.forward(
        attention_mask=make_att_2d_masks(pad, attention),
        position_ids=torch.cumsum(pad, dim=1) - 1,
        past_key_values=None,
        inputs_embeds=[prefix, None],
        use_cache=True,
    )
    cache.batch_repeat_interleave(n_draws)
    target = actions.repeat_interleave(n_draws, 0)
    noise = torch.randn_like(target)
    time = model.sample_time(len(target), target.device)
    weight = time[:, None, None]
    velocity = model.denoise_step(
        pad.repeat_interleave(n_draws, 0),
        cache,
        weight * noise + (1 - weight) * target,
        time,
    )
    return (noise - target - velocity).square()
