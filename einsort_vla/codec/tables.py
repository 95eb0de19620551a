"""Look-up tables of the `leader` form: shipped constants and the companded grid.

A table of window w = s + b holds 2^w slices of d magnitudes, for weights of unit variance. The
shipped ones are made by `python -m benchmarks.make_tables`.
"""

import functools
import json
import math
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

TABLE_FILE = Path(__file__).with_name("tables.safetensors")
COMPANDED_FROM = 5  # magnitude bits from which a companded grid is as good as a trained table


@functools.cache
def _load() -> tuple[dict[tuple[int, int, int], Tensor], dict[str, float]]:
    with safe_open(TABLE_FILE, framework="pt") as file:
        tables = {_window(name): file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tables, json.loads(file.metadata()["distortion"])


def table_name(d: int, b: int, s: int) -> str:
    return f"d{d}b{b}s{s}"


def _window(name: str) -> tuple[int, int, int]:
    d, rest = name[1:].split("b")
    b, s = rest.split("s")
    return int(d), int(b), int(s)


def available() -> list[tuple[int, int, int]]:
    """(d, b, s) of all shipped tables."""
    return list(_load()[0])


def table(d: int, b: int, s: int) -> Tensor:
    """(2^(s+b), d) float16 magnitudes; row = window of the index stream."""
    return _load()[0][d, b, s]


def distortion(d: int, b: int, s: int) -> float:
    """Relative mean squared error on Gaussian test data, measured when the table was made."""
    return _load()[1][table_name(d, b, s)]


def assigned(windows: Tensor, slices: Tensor, n_rows: int) -> tuple[Tensor, Tensor]:
    """How many slices each row of a table codes, (n_rows, 1), and their sums, (n_rows, d).

    Args:
        windows: int64 rows, any shape.
        slices: (*windows.shape, d) float32 magnitudes.
        n_rows: 2^(s+b).
    """
    rows, data = windows.flatten(), slices.flatten(0, -2)
    count = torch.bincount(rows, minlength=n_rows).float()[:, None]
    return count, data.new_zeros(n_rows, data.shape[1]).index_add_(0, rows, data)


def centroids(lookup: Tensor, count: Tensor, total: Tensor) -> Tensor:
    """One Lloyd step: each (d,) row becomes the mean of what it codes; see `assigned`."""
    trust = count / (count + 2)  # rarely used entries move slowly
    return (1 - trust) * lookup + trust * total / count.clamp_min(1)


@functools.cache
def companded_grid(b: int) -> Tensor:
    """(2^b, 1) float32: reconstruction levels of the optimal compander for a half-normal.

    Level density proportional to the cube root of the density, that is, a normal of deviation
    sqrt(3) (Panter and Dite 1951).
    """
    steps = (torch.arange(2**b, dtype=torch.float64) + 0.5) / 2**b
    return (math.sqrt(6) * torch.erfinv(steps)).to(torch.float32)[:, None]
