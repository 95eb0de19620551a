"""Multiplication from the coded streams on a CPU."""

import functools

import torch
from torch import Tensor

from einsort_vla.codec import CompressedTensor, Leader
from einsort_vla.errors import MissingDependency, UsageError
from einsort_vla.kernels import hadamard  # noqa: F401  registers the op
from einsort_vla.kernels.cpu import ops
from einsort_vla.kernels.cpu.build import library

# Of a merged table. One row times 2048 x 2048 at 3 bits, without code for pairs: 1.4 ms up to
# 64 KB, 1.7 up to 32 KB (EPYC, November 2026, benchmarks/bench_kernels.py).
MERGED_BYTES = 2**16
MOST_MERGED, MOST_WEIGHTS = 8, 8  # slices, and weights, looked up at once
PAIRS = (2, 8)  # weights a slice and bits a window that have code of their own on some processors


def merged(table: Tensor, b: int, s: int, n_slices: int) -> tuple[Tensor, int, int]:
    """A table that looks up several neighbouring slices at once, while it is small.

    Two slices of d weights and b bits are one of 2 d and 2 b: their windows, of s + 2 b bits,
    overlap.

    Returns:
        The table, its d and its b; as they are where compiled code takes pairs of weights.
    """
    d = table.shape[1]
    if (d, s + b) == PAIRS and library().einsort_has_pairs():
        return table.contiguous(), d, b
    while (
        n_slices % 2 == 0 and 2 * d <= MOST_WEIGHTS and 2 ** (s + 2 * b) * 2 * d * 4 <= MERGED_BYTES
    ):
        windows = torch.arange(2 ** (s + 2 * b))
        table = torch.cat([table[windows >> b], table[windows & (2 ** (s + b) - 1)]], dim=1)
        d, b, n_slices = 2 * d, 2 * b, n_slices // 2
    return table.contiguous(), d, b


@functools.cache  # one table for all layers
def _shared(spec: Leader, n_slices: int) -> tuple[Tensor, int, int]:
    return merged(spec.table().float(), spec.b, spec.s, n_slices)


def decode(compressed: CompressedTensor) -> Tensor:
    """As `codec.decode` a matrix in the `leader` form; rotated, but for rounding."""
    *streams, d, b, s = _arguments(compressed)
    weight = torch.ops.einsort.decode_leader(*streams, compressed.shape[1], d, b, s)
    return ops.unrotate_(weight) if _leader(compressed).rotated else weight


def _arguments(compressed: CompressedTensor) -> tuple[Tensor | int, ...]:
    """Of both ops, but for the inputs or their number."""
    spec, parts = _leader(compressed), compressed.parts
    n_slices = -(-compressed.shape[0] // spec.d)
    if spec.refined:
        table, d, b = merged(parts["table"].cpu().float(), spec.b, spec.s, n_slices)
    else:
        table, d, b = _shared(spec, n_slices % MOST_MERGED or MOST_MERGED)
    streams = (parts["signs"].cpu().contiguous(), parts["indices"].cpu().contiguous())
    return (*streams, table, parts["scale"].cpu().float(), d, b, spec.s)


def _leader(compressed: CompressedTensor) -> Leader:
    assert isinstance(compressed.spec, Leader)
    return compressed.spec


@functools.cache
def why_unavailable() -> str | None:
    """What stands against this backend on this machine, with the fix; None if nothing does."""
    try:
        library()
    except MissingDependency as error:
        return str(error)
    return None


class CpuBackend:
    """Decodes within the product, for many rows just before it, into memory that all layers share;
    computes in float32.
    """

    name = "cpu"

    def __init__(self, compressed: CompressedTensor) -> None:
        self._rotated, self._shape = _leader(compressed).rotated, compressed.shape
        self._arguments = _arguments(compressed)

    def linear(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """See `Backend.linear`; sums are in another order than those of `nn.Linear`.

        Raises:
            UsageError: the input is on another device.
        """
        if x.device.type != "cpu":
            raise UsageError(f"--backend cpu computes on the CPU; the input is on {x.device}.")
        rows, columns = self._shape
        inputs = x.reshape(-1, columns).float()
        if self._rotated:
            inputs = torch.ops.einsort.hadamard(inputs)
        y = torch.ops.einsort.matmul_leader(inputs, *self._arguments)
        if bias is not None:
            y += bias
        return y.view(*x.shape[:-1], rows).to(x.dtype)
