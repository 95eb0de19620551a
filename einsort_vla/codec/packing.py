"""Bit streams in bytes, most significant bit first, padded with zeros to a whole byte.

Work goes in chunks: expanded to one number a bit, a large matrix would not fit in memory.
"""

import numpy as np
import torch
from torch import Tensor

CHUNK = 2**18  # values; a multiple of 8, so that every chunk ends with a whole byte


def pack(values: Tensor, bits: int) -> Tensor:
    """Unsigned integers below 2^bits, any shape, to (ceil(n * bits / 8),) uint8, in order."""
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint32)
    packed = []
    for chunk in values.reshape(-1).split(CHUNK):
        numbers = chunk.cpu().numpy().astype(np.uint32)
        stream = ((numbers[:, None] >> shifts) & 1).astype(np.uint8)
        packed.append(np.packbits(stream.reshape(-1)))
    return torch.from_numpy(np.concatenate(packed))


def unpack_bits(packed: Tensor, n: int, start: int = 0) -> Tensor:
    """`n` bits of a stream from bit `start` on, (n,) uint8 of 0 and 1."""
    skipped = start % 8
    stored = packed[start // 8 : -(-(start + n) // 8)].cpu().numpy()
    return torch.from_numpy(np.unpackbits(stored, count=skipped + n)[skipped:])


def unpack(packed: Tensor, n: int, bits: int, start: int = 0) -> Tensor:
    """`n` integers of `bits` bits from the `start`-th on, (n,) int32: the inverse of `pack`."""
    weights = (2 ** torch.arange(bits - 1, -1, -1)).to(torch.int32)
    found = torch.empty(n, dtype=torch.int32)
    for first in range(0, n, CHUNK):
        own = found[first : first + CHUNK]
        stream = unpack_bits(packed, len(own) * bits, (start + first) * bits).view(-1, bits)
        torch.sum(stream * weights, dim=1, dtype=torch.int32, out=own)
    return found


def smallest_int(bits: int) -> torch.dtype:
    """The type in which unsigned integers of up to 15 bits wait to be packed."""
    return torch.uint8 if bits <= 8 else torch.int16


def packed_bits(n: int, bits: int) -> int:
    """Bits that `pack` of `n` values takes, padding included."""
    return 8 * -(-n * bits // 8)
