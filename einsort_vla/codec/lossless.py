"""The `lossless` form: bfloat16 with its exponents entropy-coded, decoded bit for bit.

The exponents of trained weights take few values: their entropy is about 2.6 of 8 bits. They are
coded by the Huffman coder of zlib, in blocks that can be decoded alone.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from einsort_vla.codec.hessian import Hessian
from einsort_vla.codec.spec import CodecSpec, Extent, Shape, StoredPart
from einsort_vla.errors import CheckpointError, NumericsError, UsageError

BLOCK = 2**16  # weights
NOT_FINITE = 255  # the exponent of NaN and infinity


@dataclass(frozen=True)
class Lossless(CodecSpec):
    """Sign and mantissa as they are, exponents in a stream of `exponent_bytes` bytes.

    The size depends on the weights, so that a spec fits one matrix: make it with `menu`.

    Raises:
        UsageError: the stream would be empty.
    """

    exponent_bytes: int
    form: ClassVar[str] = "lossless"

    def __post_init__(self) -> None:
        if self.exponent_bytes < 1:
            raise UsageError(f"exponents take 1 byte or more; not {self.exponent_bytes}.")

    def layout(self, shape: Shape) -> dict[str, StoredPart]:
        n = shape[0] * shape[1]
        return {
            "mantissas": StoredPart(torch.uint8, (n,)),
            "exponents": StoredPart(torch.uint8, (self.exponent_bytes,)),
            "lengths": StoredPart(torch.int32, (-(-n // BLOCK),)),
        }

    def predicted_distortion(self, in_features: int) -> float:
        return 0.0

    def lack(self, extent: Extent) -> str:
        return ""

    def encode(self, weight: Tensor, hessian: Hessian | None = None) -> dict[str, Tensor]:
        mantissas, blocks = _split(weight)
        stream = np.frombuffer(b"".join(blocks), dtype=np.uint8)
        if len(stream) != self.exponent_bytes:
            raise NumericsError(
                f"its exponents take {len(stream)} bytes, but the spec was made for other weights "
                f"({self.exponent_bytes} bytes)."
            )
        return {
            "mantissas": torch.from_numpy(mantissas),
            "exponents": torch.from_numpy(stream.copy()),
            "lengths": torch.tensor([len(block) for block in blocks], dtype=torch.int32),
        }

    def decode(self, parts: Mapping[str, Tensor], shape: Shape) -> Tensor:
        high = np.empty(shape[0] * shape[1], dtype=np.uint16)
        for first, block in _blocks(parts, len(high)):
            high[first : first + len(block)] = block
        low = parts["mantissas"].cpu().numpy().astype(np.uint16)
        bits = (low & 0x80) << 8 | high << 7 | low & 0x7F
        return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16).view(shape).float()

    def check(self, parts: Mapping[str, Tensor], shape: Shape) -> None:
        for _ in _blocks(parts, shape[0] * shape[1]):
            pass

    @classmethod
    def menu(cls, weight: Tensor | None = None) -> Sequence["Lossless"]:
        if weight is None or not _is_bfloat16(weight):
            return []
        return [cls(sum(map(len, _split(weight.float())[1])))]


FORM = Lossless


def _is_bfloat16(weight: Tensor) -> bool:
    return torch.equal(weight.to(torch.bfloat16).to(weight.dtype), weight)


def _split(weight: Tensor) -> tuple[np.ndarray, list[bytes]]:
    """Signs with mantissas, (n,) uint8, and the coded blocks of exponents."""
    if not _is_bfloat16(weight):
        raise NumericsError(
            "it holds values that bfloat16 cannot, so that lossless coding is not possible. "
            "Use --codec curve."
        )
    bits = weight.to(torch.bfloat16).cpu().view(torch.int16).numpy().view(np.uint16).ravel()
    mantissas = (bits >> 8 & 0x80 | bits & 0x7F).astype(np.uint8)
    exponents = (bits >> 7 & 0xFF).astype(np.uint8)
    return mantissas, [_huffman(exponents[k : k + BLOCK]) for k in range(0, len(bits), BLOCK)]


def _blocks(parts: Mapping[str, Tensor], n: int) -> Iterator[tuple[int, np.ndarray]]:
    """The exponents of `n` weights block by block, each with the number of its first weight.

    Raises:
        CheckpointError: the lengths do not make up the stream, a block holds more or fewer
            exponents than it should, or one of them is that of NaN or infinity.
    """
    stream = memoryview(parts["exponents"].cpu().numpy())
    lengths = parts["lengths"].tolist()
    if min(lengths) < 0 or sum(lengths) != len(stream):
        raise CheckpointError(f"the lengths of its blocks do not make up {len(stream)} bytes.")
    start = 0
    for number, length in enumerate(lengths):
        first = number * BLOCK
        yield first, _inflated(stream[start : start + length], min(BLOCK, n - first))
        start += length


def _inflated(block: memoryview, n: int) -> np.ndarray:
    """(n,) uint8; no more is inflated, whatever the block says."""
    inflater = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
    try:
        symbols = np.frombuffer(inflater.decompress(block, n + 1), dtype=np.uint8)
    except zlib.error as error:
        raise CheckpointError(f"a block of exponents cannot be inflated: {error}.") from error
    if len(symbols) != n or not inflater.eof or inflater.unused_data:
        raise CheckpointError(f"a block of exponents does not hold the {n} of its weights.")
    if (symbols == NOT_FINITE).any():
        raise CheckpointError("it holds NaN or infinity.")
    return symbols


def _huffman(symbols: np.ndarray) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(symbols.tobytes()) + coder.flush()
