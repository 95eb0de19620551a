"""`einsort::matmul_curve` and `einsort::decode_curve` on a CPU, by the native library."""

import ctypes

import torch
from torch import Tensor

from einsort_vla.errors import ShapeError
from einsort_vla.kernels.native.library import Matrix, library, threads

# Not `custom_op`: in inference mode it keeps its inputs alive in a reference cycle.
LIBRARY = torch.library.Library("einsort", "FRAGMENT")
_MATRIX = (
    "Tensor words, Tensor scale, float unit, int columns, int eighths, int window, bool rotated"
)
LIBRARY.define(f"matmul_curve(Tensor x, {_MATRIX}, Tensor? bias, int activations) -> Tensor")
LIBRARY.define(f"decode_curve({_MATRIX}) -> Tensor")


@torch.library.impl(LIBRARY, "matmul_curve", "CPU")
def matmul_curve(
    x: Tensor, words: Tensor, scale: Tensor, unit: float, columns: int, eighths: int, window: int,
    rotated: bool, bias: Tensor | None, activations: int,
) -> Tensor:  # fmt: skip
    """x times the transpose of a matrix in the `curve` form, plus a bias.

    Args:
        x: (n, in_features) float32.
        words: the streams, int16.
        scale: (out_features,) uint8 steps.
        unit: what steps are counted from.
        columns: in_features.
        eighths: of a bit a weight.
        window: bits.
        rotated: turn the inputs first.
        bias: (out_features,) float32, or None.
        activations: bits that the inputs are rounded to, 16 or 8, each row with a scale of its own.

    Returns:
        (n, out_features) float32; the same bits on every processor.
    """
    matrix = matrix_of(words, scale, unit, columns, eighths, window, rotated)
    return multiply(matrix, x, bias, activations)


def multiply(matrix: Matrix, x: Tensor, bias: Tensor | None, activations: int) -> Tensor:
    """`matmul_curve` with a matrix whose parts somebody keeps."""
    x = x.contiguous()
    y = torch.empty(x.shape[0], matrix.rows)
    failed = library().einsort_multiply(
        ctypes.byref(matrix), x.data_ptr(), x.shape[0], None if bias is None else bias.data_ptr(),
        y.data_ptr(), activations, ctypes.byref(threads(torch.get_num_threads())),
    )  # fmt: skip
    if failed:
        raise MemoryError(f"no memory to multiply {tuple(x.shape)} inputs.")
    return y


@torch.library.register_fake("einsort::matmul_curve", lib=LIBRARY)
def _(x: Tensor, words: Tensor, scale: Tensor, unit: float, columns: int, eighths: int,
      window: int, rotated: bool, bias: Tensor | None, activations: int) -> Tensor:  # fmt: skip
    return x.new_empty(x.shape[0], scale.shape[0])


@torch.library.impl(LIBRARY, "decode_curve", "CPU")
def decode_curve(
    words: Tensor, scale: Tensor, unit: float, columns: int, eighths: int, window: int,
    rotated: bool,
) -> Tensor:  # fmt: skip
    """The matrix itself, (out_features, in_features) float32; see `matmul_curve`."""
    matrix = matrix_of(words, scale, unit, columns, eighths, window, rotated)
    out = torch.empty(len(scale), columns)
    pool = threads(torch.get_num_threads())
    if library().einsort_decode(ctypes.byref(matrix), out.data_ptr(), ctypes.byref(pool)):
        raise MemoryError(f"no memory to decode a matrix of {len(scale)} x {columns}.")
    return out


@torch.library.register_fake("einsort::decode_curve", lib=LIBRARY)
def _(words: Tensor, scale: Tensor, unit: float, columns: int, eighths: int, window: int,
      rotated: bool) -> Tensor:  # fmt: skip
    return scale.new_empty(scale.shape[0], columns, dtype=torch.float32)


def matrix_of(
    words: Tensor, scale: Tensor, unit: float, columns: int, eighths: int, window: int,
    rotated: bool,
) -> Matrix:  # fmt: skip
    """What the library is told of a matrix; it lives as long as its parts are kept.

    Raises:
        ShapeError: the words do not fit the shape, or there is no such code.
    """
    matrix = Matrix(
        words.data_ptr(), words.numel(), scale.data_ptr(), unit, len(scale), columns, eighths,
        window, rotated,
    )  # fmt: skip
    if fault := library().einsort_fault(ctypes.byref(matrix)):
        raise ShapeError(f"a matrix in the curve form cannot be read: {fault.decode()}.")
    return matrix
