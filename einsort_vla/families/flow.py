"""What the graphs of all flow-matching policies have in common."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from einsort_vla.families.family import Part
from einsort_vla.runtime.flow import DENOISE_STEP, PREFIX, VISION


class _OfModel(nn.Module):
    """What a function computes with LeRobot's model, whose weights keep their names."""

    def __init__(self, model: Any, compute: Callable[..., Any]) -> None:
        super().__init__()
        self.model, self.forward = model, partial(compute, model)


def flow_parts(
    model: Any,
    joint: str,
    read_prefix: Callable[..., tuple[Tensor, Tensor, Tensor]],
    denoise_step: Callable[..., Tensor],
    shown: Mapping[str, Tensor],
    read: Sequence[str],
    each_step: Sequence[str] = (),
) -> list[Part]:
    """The three parts, with example inputs.

    Args:
        model: LeRobot's, which the functions are given first.
        joint: in it, the pair of backbone and action expert, which embeds pictures.
        read_prefix: embeddings and `read` to keys, values and their mask.
        denoise_step: noisy actions, time, the mask, keys, values and `each_step` to a velocity,
            (batch, chunk, action).
        shown: see `example_inputs`.
        read: names of what the prefix takes beside embeddings.
        each_step: names of what each step takes, too.
    """

    def embed(model: Any, images: Tensor) -> Tensor:
        """(batch, cameras, 3, H, W) to (batch, cameras, tokens, width)."""
        embeddings = model.get_submodule(joint).embed_image(images.flatten(0, 1))
        return embeddings.unflatten(0, images.shape[:2]).float()

    vision, prefix, step = (_OfModel(model, own) for own in (embed, read_prefix, denoise_step))
    with torch.no_grad():
        embeddings = vision(shown["images"])
        first = {"image_embeddings": embeddings, **{name: shown[name] for name in read}}
        keys, values, mask = prefix(*first.values())
    later = {
        "noisy_actions": shown["noisy_actions"], "time": shown["time"], "prefix_mask": mask,
        "keys": keys, "values": values, **{name: shown[name] for name in each_step},
    }  # fmt: skip
    deep = {"keys": 1, "values": 1}
    return [
        Part(VISION, vision, {"images": shown["images"]}, ("image_embeddings",)),
        Part(PREFIX, prefix, first, ("keys", "values", "prefix_mask"), deep),
        Part(DENOISE_STEP, step, later, ("velocity",), deep),
    ]


def embedded_already(joint: Any) -> AbstractContextManager[Any]:
    """Within, pictures are taken for their embeddings."""
    return mock.patch.object(joint, "embed_image", lambda embeddings: embeddings)


def keys_and_values(cache: Any) -> tuple[Tensor, Tensor]:
    """Of all layers, (layers, batch, heads, tokens, width) float32."""
    keys, values = (
        torch.stack([getattr(layer, name) for layer in cache.layers]).float()
        for name in ("keys", "values")
    )
    return keys, values


def cache_of(keys: Tensor, values: Tensor, dtype: torch.dtype) -> Any:
    """The cache that `keys_and_values` was made of."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer in range(len(keys)):
        cache.update(keys[layer].to(dtype), values[layer].to(dtype), layer)
    return cache


def example_inputs(config: Any, batch: int, height: int, width: int) -> dict[str, Tensor]:
    """What a policy could be shown, of the right shapes and types; see `lerobot.sampling.Shown`."""
    generator = torch.Generator().manual_seed(0)
    cameras, tokens = len(config.image_features), config.tokenizer_max_length

    def normal(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    return {
        "images": torch.rand(batch, cameras, 3, height, width, generator=generator) * 2 - 1,
        "image_masks": torch.ones(batch, cameras, dtype=torch.bool),
        "tokens": torch.randint(0, 100, (batch, tokens), generator=generator),
        "token_masks": torch.arange(tokens).expand(batch, -1) < tokens // 2,
        "state": normal(config.max_state_dim),
        "noisy_actions": normal(config.chunk_size, config.max_action_dim),
        "time": torch.full((batch,), 0.5),
    }
