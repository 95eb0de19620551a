"""Bit streams in bytes, most significant bit first, padded with zeros to a whole byte.

Work goes in chunks: expanded to one number a bit, a large matrix would not fit in memory.
"""

import functools

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

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


def unpack(packed: Tensor, n: int, bits: int, start: int = 0) -> Tensor:
    """`n` integers of `bits` bits, 17 at most, from the `start`-th on: the inverse of `pack`.

    Returns:
        (n,) int32, on the device of the stream.
    """
    if n <= CHUNK:
        first, last = start // 8, -(-(start + n) // 8)
        groups = _unpack_groups(packed[first * bits : last * bits], bits)
        return groups[start % 8 :][:n].int()
    found = torch.empty(n, dtype=torch.int32, device=packed.device)
    for first in range(0, n, CHUNK):
        own = found[first : first + CHUNK]
        own.copy_(unpack(packed, len(own), bits, start + first))
    return found


def _unpack_groups(packed: Tensor, bits: int) -> Tensor:
    """All integers of a stream, eight of which fill `bits` bytes."""
    byte_of, shift = _places(bits, packed.device)
    if 8 % bits == 0:  # none lies in two bytes
        return (packed[:, None] >> shift[: 8 // bits] & 2**bits - 1).flatten()
    groups = functional.pad(packed, (0, -len(packed) % bits)).view(-1, bits)
    groups = functional.pad(groups, (0, 2)).int()
    words = groups[:, :-2] << 16 | groups[:, 1:-1] << 8 | groups[:, 2:]  # from each byte on
    return (words.index_select(1, byte_of) >> shift + 16 & 2**bits - 1).flatten()


@functools.lru_cache(maxsize=64)
def _places(bits: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(8,) bytes in which integers begin, and bits from their ends to the ends of those bytes."""
    start = torch.arange(8) * bits
    return (start >> 3).to(device), (8 - bits - (start & 7)).to(device, torch.int8)


def smallest_int(bits: int) -> torch.dtype:
    """The type in which unsigned integers of up to 15 bits wait to be packed."""
    return torch.uint8 if bits <= 8 else torch.int16


def packed_bits(n: int, bits: int) -> int:
    """Bits that `pack` of `n` values takes, padding included."""
    return 8 * -(-n * bits // 8)
