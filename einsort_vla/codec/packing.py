"""Bit streams in bytes, most significant bit first, padded with zeros to a whole byte."""

import numpy as np
import torch
from torch import Tensor


def pack(values: Tensor, bits: int) -> Tensor:
    """Unsigned integers below 2^bits, any shape, to (ceil(n * bits / 8),) uint8, in order."""
    flat = values.reshape(-1).cpu().numpy().astype(np.uint32)
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint32)
    stream = ((flat[:, None] >> shifts) & 1).astype(np.uint8)
    return torch.from_numpy(np.packbits(stream.reshape(-1)))


def unpack_bits(packed: Tensor, n: int) -> Tensor:
    """The first `n` bits of a stream, (n,) uint8 of 0 and 1."""
    return torch.from_numpy(np.unpackbits(packed.cpu().numpy(), count=n))


def unpack(packed: Tensor, n: int, bits: int) -> Tensor:
    """`n` integers of `bits` bits, (n,) int64: the inverse of `pack`."""
    stream = unpack_bits(packed, n * bits).view(n, bits).to(torch.int64)
    weights = 2 ** torch.arange(bits - 1, -1, -1)
    return (stream * weights).sum(1)


def packed_bits(n: int, bits: int) -> int:
    """Bits that `pack` of `n` values takes, padding included."""
    return 8 * -(-n * bits // 8)
