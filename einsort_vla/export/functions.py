"""What the nodes of the domain `einsort` mean, in ONNX's own operators.

For runtimes without the native library and without the plugin. As all but `x` are constants, ONNX
Runtime then decodes each matrix once, when a session is made. docs/format.md, "Decoding `curve`",
has every bit.
"""
# ruff: noqa: N802  functions are named as their operators; opsets are found by the script

from typing import Any

import numpy as np
import torch
from onnx import FunctionProto, TensorProto, helper, numpy_helper
from onnxscript import opset18, script
from onnxscript.values import Opset

from einsort_vla.codec.curve.layout import SEGMENT, TILE_COLUMNS, WORD
from einsort_vla.codec.curve.scales import factors
from einsort_vla.codec.curve.values import GRIDS, PERIOD, POLYNOMIALS
from einsort_vla.export.linear import DOMAIN, VERSION

OPSET = 18  # the first with BitwiseAnd; TensorRT 10.3 reads it

FLOAT, INT32, INT64, UINT32 = (
    int(kind)
    for kind in (TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT32)
)
op: Any = opset18  # its types are of values, these of names in a graph
_own: Any = Opset(DOMAIN, VERSION)


def _of_windows(index: int) -> TensorProto:
    """(17,) int64: of the polynomial of each length of a window; 0 where there is none."""
    numbers = np.zeros(max(POLYNOMIALS) + 1, np.int64)
    for window, own in POLYNOMIALS.items():
        numbers[window] = own[index]
    return numpy_helper.from_array(numbers, "polynomials")


_FACTORS, _FLIPS = _of_windows(0), _of_windows(1)
_SCALES = numpy_helper.from_array(factors(torch.device("cpu")).numpy(), "scales")
_LEAST_GRID, _MOST_GRID = (
    numpy_helper.from_array(np.array(bits, np.int64), "bits") for bits in (min(GRIDS), max(GRIDS))
)
_HALVES = helper.make_tensor("halves", TensorProto.UINT32, [2], [0, WORD])
_HALF = helper.make_tensor("half", TensorProto.UINT32, [], [2**WORD - 1])
_WORD_BITS = helper.make_tensor("word", TensorProto.UINT32, [], [WORD])
_BYTES = helper.make_tensor("bytes", TensorProto.UINT32, [4], [0, 8, 16, 24])
_BYTE = helper.make_tensor("byte", TensorProto.UINT32, [], [255])
_MEAN = helper.make_tensor("mean", TensorProto.INT64, [], [508])
_BYTE_OF_INT32 = helper.make_tensor("byte", TensorProto.INT32, [], [255])


@script(_own, default_opset=op)
def WindowValues(window: int):
    """(2^window,) float32: the whole number that each window stands for."""
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    bits = op.Constant(value_int=window)
    size = op.Cast(op.Pow(op.Constant(value_int=2), bits), to=INT64)
    windows = op.Range(zero, size, one)
    factor = op.Gather(op.Constant(value=_FACTORS), bits)
    flip = op.Gather(op.Constant(value=_FLIPS), bits)
    product = op.Cast(op.BitwiseXor(windows, flip) * factor, to=UINT32)  # modulo 2^32
    column = op.Unsqueeze(product, op.Constant(value_ints=[-1]))
    shifted = op.BitShift(column, op.Constant(value=_BYTES), direction="RIGHT")
    parts = op.Cast(op.BitwiseAnd(shifted, op.Constant(value=_BYTE)), to=INT64)
    total = op.ReduceSum(parts, op.Constant(value_ints=[-1]), keepdims=0)
    curve = op.Floor(op.Cast(total - op.Constant(value=_MEAN), to=FLOAT) / 4.0)
    grid = op.Cast(windows - size / op.Constant(value_int=2), to=FLOAT)
    is_grid = op.And(
        op.GreaterOrEqual(bits, op.Constant(value=_LEAST_GRID)),
        op.LessOrEqual(bits, op.Constant(value=_MOST_GRID)),
    )
    return op.Where(is_grid, grid, curve)


@script(_own, default_opset=op)
def Windows(words, segments, rows, eighths: int, window: int, in_features: int):
    """What each row of some segments, of as many rows each, sees of their words.

    (segments * n * columns,) uint32 to (segments * rows, columns) int32; `segments` and `rows` are
    (1,) int64, and either may be 0.
    """
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    last = op.Constant(value_ints=[-1])
    period = op.Constant(value_ints=[PERIOD])
    word = op.Constant(value_ints=[WORD])
    tile = op.Constant(value_ints=[TILE_COLUMNS])
    columns = op.Reshape(op.Constant(value_int=in_features), one)
    bits = op.Reshape(op.Constant(value_int=eighths), one)
    n = (rows * bits / period + word - one) / word
    # Tiles of 32 columns, and one that is narrower, in which columns are what is next to another.
    tiles = columns / tile
    whole = tiles * tile
    by_segment = op.Reshape(words, op.Concat(segments, n * columns, axis=0), allowzero=1)
    wide = op.Reshape(
        op.Slice(by_segment, zero, n * whole, one),
        op.Concat(segments, tiles, n, tile, axis=0), allowzero=1,
    )  # fmt: skip
    wide = op.Reshape(
        op.Transpose(wide, perm=[0, 2, 1, 3]), op.Concat(segments, n, whole, axis=0), allowzero=1
    )
    narrow = op.Reshape(
        op.Slice(by_segment, n * whole, n * columns, one),
        op.Concat(segments, n, columns - whole, axis=0), allowzero=1,
    )  # fmt: skip
    streams = op.Concat(wide, narrow, axis=2)
    # The word that a row's bits end in, and the one before it: a stream is a ring.
    start = op.Constant(value_int=1)
    ends = op.Range(start, op.Squeeze(rows + one), start) * bits / period
    at = (ends - one) / word
    before = op.Mod(at + n - one, op.Max(n, one))
    older = op.BitShift(op.Gather(streams, before, axis=1), op.Constant(value=_WORD_BITS),
                        direction="LEFT")  # fmt: skip
    both = op.BitwiseOr(older, op.Gather(streams, at, axis=1))
    after = op.Unsqueeze(op.Cast(word * (at + one) - ends, to=UINT32), last)
    size = op.Cast(op.Pow(op.Constant(value_int=2), op.Constant(value_int=window)), to=INT64)
    mask = op.Cast(size - start, to=UINT32)
    seen = op.BitwiseAnd(op.BitShift(both, after, direction="RIGHT"), mask)
    shape = op.Concat(segments * rows, columns, axis=0)
    return op.Reshape(op.Cast(seen, to=INT32), shape, allowzero=1)


@script(_own, default_opset=op)
def MatmulCurve(
    x, words, scale, out_features: int, in_features: int, eighths: int, window: int, unit: float
):
    """(..., in_features) to (..., out_features); sums are in float32."""
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    last = op.Constant(value_ints=[-1])
    period = op.Constant(value_ints=[PERIOD])
    word = op.Constant(value_ints=[WORD])
    segment = op.Constant(value_ints=[SEGMENT])
    rows = op.Reshape(op.Constant(value_int=out_features), one)
    columns = op.Reshape(op.Constant(value_int=in_features), one)
    bits = op.Reshape(op.Constant(value_int=eighths), one)
    pairs = op.Unsqueeze(op.Cast(words, to=UINT32), last)
    halves = op.BitwiseAnd(
        op.BitShift(pairs, op.Constant(value=_HALVES), direction="RIGHT"), op.Constant(value=_HALF)
    )
    stream = op.Reshape(halves, last)
    # Whole segments, and what is left.
    segments = rows / segment
    left = rows - segments * segment
    n_whole = segments * (segment * bits / period / word) * columns
    n_left = (left * bits / period + word - one) / word * columns
    whole = _own.Windows(
        op.Slice(stream, zero, n_whole, zero), segments, segment, eighths=eighths, window=window,
        in_features=in_features,
    )  # fmt: skip
    rest = _own.Windows(
        op.Slice(stream, n_whole, n_whole + n_left, zero), one, left, eighths=eighths,
        window=window, in_features=in_features,
    )  # fmt: skip
    windows = op.Concat(whole, rest, axis=0)
    values = op.Gather(_own.WindowValues(window=window), windows)
    codes = op.BitwiseAnd(op.Cast(scale, to=INT32), op.Constant(value=_BYTE_OF_INT32))
    scales = op.Gather(op.Constant(value=_SCALES), codes) * op.Constant(value_float=unit)
    weight = values * op.Unsqueeze(scales, last)
    return op.CastLike(op.MatMul(op.Cast(x, to=FLOAT), op.Transpose(weight, perm=[1, 0])), x)


@script(_own, default_opset=op)
def Rotate(x, signs, first, second, cosine):
    """(..., n) to (..., n): `export.linear.Rotation`."""
    zero = op.Constant(value_ints=[0])
    last = op.Constant(value_ints=[-1])
    shape = op.Shape(x)
    before = op.Slice(shape, zero, last)
    rows = op.Shape(first, start=0, end=1)
    columns = op.Shape(second, start=0, end=1)
    rest = op.Shape(cosine, start=0, end=1)
    deep = op.Concat(before, rows, columns, rest, axis=0)
    folded = op.MatMul(op.Reshape(op.Cast(x, to=FLOAT) * signs, deep, allowzero=1), cosine)
    flat = op.Concat(before, rows, columns * rest, axis=0)
    turned = op.MatMul(first, op.Reshape(op.MatMul(second, folded), flat, allowzero=1))
    return op.CastLike(op.Reshape(turned, shape, allowzero=1), x)


def function_bodies() -> list[FunctionProto]:
    """Those of all operators, to be put into a model."""
    functions: list[Any] = [WindowValues, Windows, MatmulCurve, Rotate]
    return [function.to_function_proto() for function in functions]
