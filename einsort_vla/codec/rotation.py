"""A randomized Hadamard rotation of the input dimension, for any width.

With n = 2^k m, m odd, x is multiplied by random signs and then by H kron C: the Walsh-Hadamard
matrix of size 2^k and the orthonormal cosine transform of size m. Every entry of a row is then a
sum over the whole row, nearly Gaussian, whatever the weights were (Chee et al. 2023,
arXiv:2307.13304, section 4; the EinSort paper's appendix D.2 argues for it without an experiment).
"""

import functools
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from einsort_vla.codec.hessian import Hessian

ROWS = 256  # turned at once, for the memory of the steps between
SEED = 0  # of the signs, the same for every matrix, so that no seed is stored


def rotate(matrix: Tensor) -> Tensor:
    """(rows, n) to (rows, n): each row x becomes x Q, with Q orthogonal."""
    signs, cosine = (part.to(matrix) for part in rotation_parts(matrix.shape[1]))
    turned = torch.empty_like(matrix)
    for rows, out in zip(matrix.split(ROWS), turned.split(ROWS), strict=True):
        folded = (rows * signs).unflatten(-1, (-1, len(cosine)))
        out.copy_((hadamard(folded) @ cosine).flatten(-2))
    return turned


def rotated_problem(weight: Tensor, hessian: Hessian | None) -> tuple[Tensor, Hessian | None]:
    """A weight, and its Hessian if there is one, as both are where inputs are rotated."""
    if hessian is None:
        return rotate(weight), None
    turned = rotate(rotate(hessian.inputs.double()).t())
    return rotate(weight), replace(hessian, inputs=turned)


def unrotate(matrix: Tensor) -> Tensor:
    """The inverse of `rotate`: each row x becomes x Q^T."""
    signs, cosine = (part.to(matrix) for part in rotation_parts(matrix.shape[1]))
    turned = torch.empty_like(matrix)
    for rows, out in zip(matrix.split(ROWS), turned.split(ROWS), strict=True):
        folded = rows.unflatten(-1, (-1, len(cosine)))
        out.copy_((hadamard(folded) @ cosine.t()).flatten(-2) * signs)
    return turned


def hadamard(folded: Tensor) -> Tensor:
    """(..., 2^k, m): the orthonormal Walsh-Hadamard transform along the next to last axis, in
    natural order.
    """
    size = folded.shape[-2]
    result, half = folded.contiguous(), 1
    while half < size:
        pairs = result.unflatten(-2, (-1, 2, half))
        first, second = pairs.unbind(-3)
        turned = torch.empty_like(pairs)
        torch.add(first, second, out=turned.select(-3, 0))
        torch.sub(first, second, out=turned.select(-3, 1))
        result = turned.flatten(-4, -2)
        half *= 2
    return result / math.sqrt(size)


def rotation_factors(n: int, n_hadamards: int) -> tuple[Tensor, list[Tensor]]:
    """A rotation of width n as small matrices; float64.

    Returns:
        Signs (n,), and orthonormal square matrices, whose Kronecker product turns what the signs
        were multiplied with: `n_hadamards` Walsh-Hadamard matrices, of sizes as equal as powers of
        two allow, and the cosine transform.
    """
    signs, cosine = rotation_parts(n)
    n_bits = (n // len(cosine)).bit_length() - 1
    ends = [n_bits * i // n_hadamards for i in range(n_hadamards + 1)] if n_hadamards else []
    units = [torch.eye(2 ** (end - start), dtype=torch.float64) for start, end in pairwise(ends)]
    return signs, [*(hadamard(unit) for unit in units), cosine]


@functools.lru_cache(maxsize=64)
def rotation_parts(n: int) -> tuple[Tensor, Tensor]:
    """What a rotation of width n = 2^k m is made of.

    Returns:
        Signs (n,), and the orthonormal DCT-II (m, m); float64.
    """
    odd = n // (n & -n)
    # RandomState's stream is frozen by numpy; newer generators may change.
    signs = torch.from_numpy(np.random.RandomState(SEED).randint(0, 2, n) * 2.0 - 1)
    k = torch.arange(odd, dtype=torch.float64)
    cosine = torch.cos(math.pi / odd * (k[:, None] + 0.5) * k) * math.sqrt(2 / odd)
    cosine[:, 0] /= math.sqrt(2)
    return signs, cosine
