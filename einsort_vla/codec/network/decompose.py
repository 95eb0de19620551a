"""Tensor decompositions of given rank as lists of cores, float64 while they are made."""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from einsort_vla.errors import importing

Name = Literal["svd", "tt", "tr", "cp", "tucker"]
Fold = Literal["factors", "slices"]
TERMS = 64  # of a canonical decomposition, contracted at once


class Decomposition(Protocol):
    """Fits and contracts cores of one topology."""

    def core_shapes(self, modes: Sequence[int], rank: int) -> list[tuple[int, ...]]:
        """Shapes of the cores of a tensor with these modes."""
        ...

    def fit(self, tensor: Tensor, rank: int) -> list[Tensor]:
        """Cores whose contraction comes close to the tensor."""
        ...

    def contract(self, cores: Sequence[Tensor]) -> Tensor:
        """The tensor that the cores stand for."""
        ...

    def bonds(self, n_modes: int) -> list[tuple[int, int, int]]:
        """(core, neighbour, axis of the neighbour) of each bond, in the order they are fixed; the
        bond is the last axis of the core."""
        ...


class TensorTrain:
    """Recursive SVD (Oseledets 2011); with two modes the plain truncated SVD."""

    def core_shapes(self, modes: Sequence[int], rank: int) -> list[tuple[int, ...]]:
        ranks = [1]
        for k in range(1, len(modes)):
            ranks.append(min(rank, ranks[-1] * modes[k - 1], math.prod(modes[k:])))
        ranks.append(1)
        return [(ranks[k], n, ranks[k + 1]) for k, n in enumerate(modes)]

    def fit(self, tensor: Tensor, rank: int) -> list[Tensor]:
        cores, left = [], tensor
        for before, n, after in self.core_shapes(tensor.shape, rank)[:-1]:
            u, s, vh = torch.linalg.svd(left.reshape(before * n, -1), full_matrices=False)
            cores.append(u[:, :after].view(before, n, after))
            left = s[:after, None] * vh[:after]
        return [*cores, left.reshape(-1, tensor.shape[-1], 1)]

    def contract(self, cores: Sequence[Tensor]) -> Tensor:
        return _chain(cores)[0, ..., 0]

    def bonds(self, n_modes: int) -> list[tuple[int, int, int]]:
        return [(k, k + 1, 0) for k in range(n_modes - 1)]


class TensorRing:
    """tensorly's TR-SVD (Zhao et al. 2016); the closing bond is not fixed."""

    def core_shapes(self, modes: Sequence[int], rank: int) -> list[tuple[int, ...]]:
        # TR-SVD splits the first bond in two: their product is a rank of the first unfolding.
        full = min(modes[0], math.prod(modes[1:]))
        first = max(1, min(math.isqrt(rank), math.isqrt(full)))
        ranks = [first, min(rank, full // first)]
        for k in range(1, len(modes) - 1):
            ranks.append(min(rank, ranks[-1] * modes[k], math.prod(modes[k + 1 :]) * first))
        ranks.append(first)
        return [(ranks[k], n, ranks[k + 1]) for k, n in enumerate(modes)]

    def fit(self, tensor: Tensor, rank: int) -> list[Tensor]:
        shapes = self.core_shapes(tensor.shape, rank)
        ranks = [shape[0] for shape in shapes] + [shapes[0][0]]
        return list(_tensorly().decomposition.tensor_ring(tensor, rank=ranks))

    def contract(self, cores: Sequence[Tensor]) -> Tensor:
        # The closing bond entry by entry: with it open, the whole would be as often in memory.
        first, *middle, last = cores
        parts = (
            _chain([first[k : k + 1], *middle, last[..., k : k + 1]])[0, ..., 0]
            for k in range(len(first))
        )
        return functools.reduce(torch.add, parts)

    def bonds(self, n_modes: int) -> list[tuple[int, int, int]]:
        return [(k, k + 1, 0) for k in range(n_modes - 1)]


class Canonical:
    """tensorly's CP by alternating least squares; it has no bonds to fix."""

    def core_shapes(self, modes: Sequence[int], rank: int) -> list[tuple[int, ...]]:
        rank = min(rank, math.prod(modes) // max(modes))
        return [(n, rank) for n in modes]

    def fit(self, tensor: Tensor, rank: int) -> list[Tensor]:
        rank = self.core_shapes(tensor.shape, rank)[0][1]
        weights, factors = _tensorly().decomposition.parafac(
            tensor, rank=rank, n_iter_max=50, init="random", random_state=0, l2_reg=1e-9
        )
        return [factors[0] * weights, *factors[1:]]

    def contract(self, cores: Sequence[Tensor]) -> Tensor:
        # A product of two matrices, of the first modes and the last; some terms at a time.
        modes, middle = [len(factor) for factor in cores], (len(cores) + 1) // 2
        terms = zip(*(factor.split(TERMS, dim=1) for factor in cores), strict=True)
        parts = (_khatri_rao(f[:middle]) @ _khatri_rao(f[middle:]).t() for f in terms)
        return functools.reduce(torch.add, parts).view(modes)

    def bonds(self, n_modes: int) -> list[tuple[int, int, int]]:
        return []


class Tucker:
    """Higher-order SVD (De Lathauwer et al. 2000) refined by tensorly; core last."""

    def core_shapes(self, modes: Sequence[int], rank: int) -> list[tuple[int, ...]]:
        ranks = tuple(min(rank, n, math.prod(modes) // n) for n in modes)
        return [*zip(modes, ranks, strict=True), ranks]

    def fit(self, tensor: Tensor, rank: int) -> list[Tensor]:
        ranks = self.core_shapes(tensor.shape, rank)[-1]
        core, factors = _tensorly().decomposition.tucker(tensor, rank=list(ranks), n_iter_max=20)
        return [*factors, core]

    def contract(self, cores: Sequence[Tensor]) -> Tensor:
        result = cores[-1]
        for axis, factor in enumerate(cores[:-1]):
            result = multiply(factor, result, axis)
        return result

    def bonds(self, n_modes: int) -> list[tuple[int, int, int]]:
        return [(k, n_modes, k) for k in range(n_modes)]


def _khatri_rao(factors: Sequence[Tensor]) -> Tensor:
    """(n, terms) of factors (n_k, terms), n the product of all n_k."""
    result = factors[0]
    for factor in factors[1:]:
        result = (result[:, None] * factor).flatten(0, 1)
    return result


def multiply(matrix: Tensor, tensor: Tensor, axis: int) -> Tensor:
    """The tensor with one axis multiplied by a matrix (n-mode product)."""
    return (
        (matrix @ tensor.movedim(axis, 0).flatten(1))
        .unflatten(1, [n for k, n in enumerate(tensor.shape) if k != axis])
        .movedim(0, axis)
    )


DECOMPOSITIONS: dict[str, Decomposition] = {
    "svd": TensorTrain(),
    "tt": TensorTrain(),
    "tr": TensorRing(),
    "cp": Canonical(),
    "tucker": Tucker(),
}


def _chain(cores: Sequence[Tensor]) -> Tensor:
    """Cores contracted one after the other, both outer bonds left open."""
    result = cores[0]
    for core in cores[1:]:
        result = torch.tensordot(result, core, dims=1)
    return result


def modes_of(name: str, fold: Fold, slices: int, rows: int, columns: int) -> tuple[int, ...]:
    """The fold that a decomposition of `slices` blocks of (rows, columns) works on.

    SVD keeps the two axes of the whole matrix. The others have three modes for the fold `slices`,
    as in the EinSort paper's table 2, or four for `factors`: both axes split into the two factors
    nearest to each other.
    """
    if name == "svd":
        return slices * rows, columns
    if fold == "slices":
        return slices, rows, columns
    return (*_near_factors(slices * rows), *_near_factors(columns))


def _near_factors(n: int) -> tuple[int, int]:
    small = next(k for k in range(math.isqrt(n), 0, -1) if n % k == 0)
    return n // small, small


def _tensorly() -> Any:
    with importing("tensorly cannot be imported", "Install it with: uv sync --extra network"):
        import tensorly
        import tensorly.decomposition
    tensorly.set_backend("pytorch")
    return tensorly
