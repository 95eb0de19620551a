"""Stored permutations: the sizes the theory gives, and two ways to keep them.

A permutation of n entries needs ceil(log2 n!) bits. `lehmer` comes within a bit in 64 entries of
that; `index` takes ceil(log2 n) bits an entry and is read back at once.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from einsort_vla.codec.packing import pack, packed_bits, unpack
from einsort_vla.errors import CheckpointError

Storage = Literal["lehmer", "index"]
DIGITS_AT_ONCE = 64  # Lehmer digits that share one whole number of bits
_CHUNK = 512  # of the list that a Lehmer code is read into


def log2_factorial(n: int) -> float:
    """log2 n!, from the log-gamma function."""
    return math.lgamma(n + 1) / math.log(2)


def stored_bits(n: int, count: int, storage: Storage) -> int:
    """Bits that `store` takes for `count` permutations of n entries, padding included."""
    if storage == "index":
        return packed_bits(n * count, _index_bits(n))
    return 8 * -(-count * sum(bits for _, bits in _blocks(n)) // 8)


def store(orders: Tensor, storage: Storage) -> Tensor:
    """(count, n) permutations to uint8."""
    n = orders.shape[1]
    if storage == "index":
        return pack(orders, _index_bits(n))
    stream = "".join(_digits_to_bits(_lehmer_digits(order), n) for order in orders.cpu().numpy())
    padded = stream.ljust(8 * -(-len(stream) // 8), "0")
    data = int(padded, 2).to_bytes(len(padded) // 8) if padded else b""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.zeros(0).byte()


def restore(stored: Tensor, n: int, count: int, storage: Storage) -> Tensor:
    """(count, n) int64: the inverse of `store`.

    Raises:
        CheckpointError: stored indices leave one out, or name one twice.
    """
    if storage == "index":
        orders = unpack(stored, n * count, _index_bits(n)).view(count, n).long()
        if not (orders.sort(dim=1).values == torch.arange(n)).all():
            raise CheckpointError(f"its stored order is no permutation of {n} entries.")
        return orders
    data = stored.cpu().numpy().tobytes()
    stream = bin(int.from_bytes(b"\1" + data))[3:]
    each = sum(bits for _, bits in _blocks(n))
    orders = [_order(_bits_to_digits(stream[k * each : (k + 1) * each], n)) for k in range(count)]
    return torch.tensor(orders, dtype=torch.int64)


def _index_bits(n: int) -> int:
    return max(1, (n - 1).bit_length())


@lru_cache(maxsize=16)
def _blocks(n: int) -> tuple[tuple[Sequence[int], int], ...]:
    """Radices of the Lehmer digits, block by block, with the bits of each block."""
    radices = range(n, 1, -1)  # the last digit is always 0
    blocks = [radices[k : k + DIGITS_AT_ONCE] for k in range(0, len(radices), DIGITS_AT_ONCE)]
    return tuple((block, (math.prod(block) - 1).bit_length()) for block in blocks)


def _lehmer_digits(order: np.ndarray) -> np.ndarray:
    """For each entry, how many smaller ones follow it.

    Two entries differ first in some bit; those that have it set count the later ones, equal above
    it, that have not.
    """
    digits = np.zeros(len(order), dtype=np.int64)
    for bit in range(max(1, (len(order) - 1).bit_length())):
        prefix = order >> (bit + 1)
        by_prefix = np.argsort(prefix, kind="stable")
        is_low = (order[by_prefix] >> bit & 1) == 0
        seen = np.cumsum(is_low)
        last = np.searchsorted(prefix[by_prefix], prefix[by_prefix], side="right") - 1
        digits[by_prefix] += np.where(is_low, 0, seen[last] - seen)
    return digits


def _digits_to_bits(digits: np.ndarray, n: int) -> str:
    parts, start = [], 0
    for radices, bits in _blocks(n):
        value, block = 0, digits[start : start + len(radices)].tolist()
        for radix, digit in zip(radices, block, strict=True):
            value = value * radix + digit
        parts.append(format(value, f"0{bits}b"))
        start += len(radices)
    return "".join(parts)


def _bits_to_digits(stream: str, n: int) -> list[int]:
    digits: list[int] = []
    start = 0
    for radices, bits in _blocks(n):
        value, block = int(stream[start : start + bits], 2), []
        for radix in reversed(radices):
            value, digit = divmod(value, radix)
            block.append(digit)
        digits += reversed(block)
        start += bits
    return [*digits, 0]


def _order(digits: Sequence[int]) -> list[int]:
    """Take the digit-th of those left, in chunks, so that a removal moves few entries."""
    left = list(range(len(digits)))
    chunks = [left[k : k + _CHUNK] for k in range(0, len(left), _CHUNK)]
    order = []
    for digit in digits:
        for chunk in chunks:
            if digit < len(chunk):
                order.append(chunk.pop(digit))
                break
            digit -= len(chunk)
    return order
