"""`einsort::hadamard`: the rotation of the input dimension on any device, by small products."""

import functools
import math

import torch
from torch import Tensor

from einsort_vla.codec.rotation import rotate, rotation_parts

LARGEST_BITS = 6  # of a Hadamard matrix; a larger one is a Kronecker product of several

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
    signs, cosine = rotation_parts(n)
    power = (n // len(cosine)).bit_length() - 1
    factors = [_hadamard(min(LARGEST_BITS, power - done)) for done in range(0, power, LARGEST_BITS)]
    return signs.to(device, dtype), [part.to(device, dtype) for part in (*factors, cosine)]


def _hadamard(bits: int) -> Tensor:
    """(2^bits, 2^bits) float64: the rotation of that width without its signs."""
    unit = torch.eye(2**bits, dtype=torch.float64)
    return rotate(unit * rotation_parts(2**bits)[0])
