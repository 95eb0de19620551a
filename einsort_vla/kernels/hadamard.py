"""`einsort::hadamard`: the rotation of the input dimension on any device, by small products."""

import functools
import math

import torch
from torch import Tensor

from einsort_vla.codec.rotation import rotation_factors

LARGEST_BITS = 6  # of a Hadamard matrix; a wider rotation has several

LIBRARY = torch.library.Library("einsort", "FRAGMENT")
LIBRARY.define("hadamard(Tensor x) -> Tensor")


@torch.library.impl(LIBRARY, "hadamard", "CompositeExplicitAutograd")
def hadamard(x: Tensor) -> Tensor:
    """(..., n) to (..., n): each row x becomes x Q, as `codec.rotation.rotate` turns a matrix.

    Computed in float32, or float64 if x is; returned in the type of x.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    signs, factors = _parts(x.shape[-1], x.device, wide.dtype)
    turned = wide * signs
    for factor in reversed(factors):  # the last axis is turned and becomes the first
        turned = turned.reshape(math.prod(x.shape[:-1]), x.shape[-1] // len(factor), len(factor))
        turned = (turned @ factor).transpose(1, 2).contiguous()
    return turned.view(x.shape).to(x.dtype)


@torch.library.register_fake("einsort::hadamard", lib=LIBRARY)
def _(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@functools.lru_cache(maxsize=64)
def _parts(n: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Signs (n,), and the factors whose Kronecker product the rotation is without them."""
    n_bits = (n & -n).bit_length() - 1
    signs, factors = rotation_factors(n, -(-n_bits // LARGEST_BITS))
    return signs.to(device, dtype), [factor.to(device, dtype) for factor in factors]
