"""`einsort::matmul_leader` and `einsort::decode_leader` on a CPU, by compiled code, in float32."""

import functools
import threading

import torch
from torch import Tensor

from einsort_vla.codec.rotation import rotation_parts
from einsort_vla.kernels.cpu.build import library

# Up to so many rows are multiplied block by block while the matrix is decoded, more by torch after
# it. At 128 to 512 rows both cost the same (EPYC with AVX-512, bench_kernels.py, November 2026).
FUSED_ROWS = 128
BLOCK = 128  # floats that are written at once, up to so many beyond the end
# Floats between rows: a power of two apart, they would push each other out of the cache.
PADDING = 16
# Less is not worth a thread: of a product each has sums of its own, which are added in the end.
COLUMNS_PER_THREAD, WEIGHTS_PER_THREAD = 64, 2**15

_kept = threading.local()


# Not `custom_op`: in inference mode it keeps its inputs alive in a reference cycle.
LIBRARY = torch.library.Library("einsort", "FRAGMENT")
_MATRIX = "Tensor signs, Tensor indices, Tensor table, Tensor scale"
_WINDOW = "int d, int b, int s"
LIBRARY.define(f"matmul_leader(Tensor x, {_MATRIX}, {_WINDOW}) -> Tensor")
LIBRARY.define(f"decode_leader({_MATRIX}, int columns, {_WINDOW}) -> Tensor")


@torch.library.impl(LIBRARY, "matmul_leader", "CPU")
def matmul_leader(
    x: Tensor, signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor, d: int, b: int, s: int
) -> Tensor:
    """x times the transpose of a matrix in the `leader` form.

    Args:
        x: (n, in_features) float32.
        signs: its bit plane, uint8.
        indices: its index stream, uint8.
        table: (2^(s+b), d) float32 magnitudes.
        scale: (out_features,) float32.
        d: weights a slice.
        b: index bits a slice.
        s: bits of the window before them.

    Returns:
        (n, out_features) float32; sums are in float32 too.
    """
    (n, columns), rows = x.shape, scale.shape[0]
    streams = _streams(signs, indices, table, rows, d, b, s)
    if n > FUSED_ROWS:
        weight = _scratch(columns * _stride(rows)).view(columns, -1)
        _decode(streams, rows, weight)
        return (x @ weight[:, :rows]).mul_(scale)
    inputs = x.contiguous()

    y = torch.zeros(_n_parts(rows, columns), n, _stride(rows))
    library().einsort_matmul_leader(
        *streams, columns, len(y), inputs.data_ptr(), n, y.data_ptr(), _stride(rows)
    )
    total, *others = y[..., :rows]
    for other in others:
        total += other
    return total * scale


@torch.library.register_fake("einsort::matmul_leader", lib=LIBRARY)
def _(x: Tensor, signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor,
      d: int, b: int, s: int) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape[0], scale.shape[0])


@torch.library.impl(LIBRARY, "decode_leader", "CPU")
def decode_leader(
    signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor, columns: int, d: int, b: int,
    s: int,
) -> Tensor:  # fmt: skip
    """The matrix itself, (out_features, in_features) float32, whose columns are what is contiguous;
    see `matmul_leader`.
    """
    rows = len(scale)
    out = torch.empty(columns, _stride(rows))
    _decode(_streams(signs, indices, table, rows, d, b, s), rows, out)
    return out[:, :rows].mul_(scale).t()


@torch.library.register_fake("einsort::decode_leader", lib=LIBRARY)
def _(signs: Tensor, indices: Tensor, table: Tensor, scale: Tensor, columns: int,
      d: int, b: int, s: int) -> Tensor:  # fmt: skip
    return scale.new_empty(columns, _stride(len(scale)))[:, : len(scale)].t()


def unrotate_(weight: Tensor) -> Tensor:
    """In place: `codec.rotation.unrotate` of what `decode_leader` returns, but for rounding."""
    rows, columns = weight.shape
    signs, cosine = _rotation(columns)
    m = len(cosine)
    library().einsort_unrotate(
        weight.data_ptr(), rows, weight.stride(1), columns // m, m, cosine.data_ptr(),
        signs.data_ptr(), _n_parts(rows, columns),
    )  # fmt: skip
    return weight


@functools.lru_cache(maxsize=64)
def _rotation(columns: int) -> tuple[Tensor, Tensor]:
    signs, cosine = rotation_parts(columns)
    return signs.float(), cosine.float().contiguous()


def _streams(
    signs: Tensor, indices: Tensor, table: Tensor, rows: int, d: int, b: int, s: int
) -> tuple[int, ...]:
    """The first arguments of both compiled functions."""
    pointers = (signs.data_ptr(), signs.numel(), indices.data_ptr(), indices.numel())
    return (*pointers, table.data_ptr(), rows, d, b, s)


def _decode(streams: tuple[int, ...], rows: int, out: Tensor) -> None:
    """Write (in_features, out_features), without the row scales, into `out`, whose rows have
    `_stride` floats.
    """
    columns, stride = out.shape
    library().einsort_decode_leader(
        *streams, columns, _n_parts(rows, columns), out.data_ptr(), stride
    )


def _stride(rows: int) -> int:
    return -(-rows // BLOCK) * BLOCK + PADDING


def _scratch(n: int) -> Tensor:
    """(n,) float32 of this thread, of any values; new pages would cost more than decoding."""
    if getattr(_kept, "memory", None) is None or len(_kept.memory) < n:
        _kept.memory = torch.empty(n)
    return _kept.memory[:n]


def _n_parts(rows: int, columns: int) -> int:
    """Into which the columns are shared out, one to a thread of torch."""
    worth = min(columns // COLUMNS_PER_THREAD, rows * columns // WEIGHTS_PER_THREAD)
    return max(1, min(torch.get_num_threads(), worth))
