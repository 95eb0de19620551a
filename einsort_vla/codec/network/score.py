"""The score that decides the order: a map of each entry, reduced over the slices (paper 3.2, C)."""

from typing import Literal

import torch
from torch import Tensor

Map = Literal["linear", "power", "abs_power", "exp", "log_shift", "log_scale"]
Reduction = Literal["mean", "max", "min", "median", "std", "prod"]
_TINY = 1e-300


def score(slices: Tensor, map_: Map, power: float, reduction: Reduction) -> Tensor:
    """One number for each position, by which all slices are sorted.

    Args:
        slices: (n_slices, ...) values that share one order.
        map_: of each entry; `power` is its parameter.
        reduction: over the slices.

    Returns:
        (...) float64; for the product a number that grows with it, free of underflow.
    """
    mapped = _MAPS[map_](slices.double(), power)
    if reduction == "prod":
        size = mapped.abs().clamp_min(_TINY).log().sum(0)
        return mapped.sign().prod(0) * (size - size.min() + 1)
    return _REDUCTIONS[reduction](mapped)


_MAPS = {
    "linear": lambda x, p: p * x,
    "power": lambda x, p: x.sign() * x.abs() ** p,
    "abs_power": lambda x, p: x.abs() ** p,
    "exp": lambda x, p: (p * x).clamp(-10, 10).exp(),
    "log_shift": lambda x, p: (x + p).clamp_min(_TINY).log(),
    "log_scale": lambda x, p: (x * p).clamp_min(_TINY).log(),
}
_REDUCTIONS = {
    "mean": lambda x: x.mean(0),
    "max": lambda x: x.amax(0),
    "min": lambda x: x.amin(0),
    "median": lambda x: torch.quantile(x, 0.5, dim=0) if x.numel() < 2**24 else x.median(0).values,
    "std": lambda x: x.std(0, correction=0),
}
