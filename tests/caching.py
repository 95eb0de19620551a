"""States as language models have them, and caches filled with them."""

import torch

from einsort_vla.cache import EinSortCache


def states(batch=1, heads=2, tokens=64, dim=16, seed=0):
    """Keys with channel means and a large first token, values without, as in language models."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(batch, heads, tokens, dim, generator=generator)
    keys += 3 * torch.randn(1, heads, 1, dim, generator=generator)
    keys[:, :, 0] *= 4
    return keys, torch.randn(batch, heads, tokens, dim, generator=generator)


def filled(codec="curve", rate=0.75, block=0, **sizes):
    cache = EinSortCache(codec, rate, block)
    cache.update(*states(**sizes), 0)
    return cache


def error(found, expected):
    return float((found - expected).square().sum() / expected.square().sum())
