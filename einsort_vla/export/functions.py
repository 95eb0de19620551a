"""What the nodes of the domain `einsort` mean, in ONNX's own operators.

ONNX Runtime inlines these bodies and, as all but `x` are constants, decodes each matrix once when a
session is made. Engines have a plugin instead. docs/format.md, "Decoding `leader`", has every bit.
"""
# ruff: noqa: N802  functions are named as their operators; opsets are found by the script

from typing import Any

from onnx import FunctionProto, TensorProto, helper
from onnxscript import opset18, script
from onnxscript.values import Opset

from einsort_vla.export.linear import DOMAIN, VERSION

OPSET = 18  # the first with BitwiseAnd; TensorRT 10.3 reads it

BOOL, FLOAT, INT32, UINT8, UINT32 = (
    int(kind)
    for kind in (
        TensorProto.BOOL, TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT8,
        TensorProto.UINT32,
    )
)  # fmt: skip
op: Any = opset18  # its types are of values, these of names in a graph
_own: Any = Opset(DOMAIN, VERSION)
# A word is four bytes, the lowest first; of each byte the highest bit comes first.
_BYTES = helper.make_tensor("bytes", TensorProto.UINT32, [4], [0, 8, 16, 24])
_BYTE = helper.make_tensor("byte", TensorProto.UINT32, [1], [255])
_BITS = helper.make_tensor("bits", TensorProto.UINT8, [8], [7, 6, 5, 4, 3, 2, 1, 0])
_ONE = helper.make_tensor("one", TensorProto.UINT8, [1], [1])


@script(_own, default_opset=op)
def Bits(words):
    """(n,) int32 words to the (32 n,) bits of their stream, uint8."""
    last = op.Constant(value_ints=[-1])
    column = op.Unsqueeze(op.Cast(words, to=UINT32), last)
    shifted = op.BitShift(column, op.Constant(value=_BYTES), direction="RIGHT")
    stream = op.Cast(op.BitwiseAnd(shifted, op.Constant(value=_BYTE)), to=UINT8)
    bits = op.BitShift(op.Unsqueeze(stream, last), op.Constant(value=_BITS), direction="RIGHT")
    return op.Reshape(op.BitwiseAnd(bits, op.Constant(value=_ONE)), last)


@script(_own, default_opset=op)
def MatmulLeader(
    x, signs, indices, table, scale, out_features: int, in_features: int, d: int, b: int, s: int
):
    """(..., in_features) to (..., out_features); sums are in float32."""
    zero = op.Constant(value_ints=[0])
    one = op.Constant(value_ints=[1])
    last = op.Constant(value_ints=[-1])
    rows = op.Reshape(op.Constant(value_int=out_features), one)
    columns = op.Reshape(op.Constant(value_int=in_features), one)
    bits = op.Reshape(op.Constant(value_int=b), one)
    before = op.Reshape(op.Constant(value_int=s), one)
    width = op.Reshape(op.Constant(value_int=d), one)
    slices = op.Div(rows + width - one, width)
    # Each slice's own bits as one number, (in_features, slices).
    length = slices * bits
    stream = op.Slice(_own.Bits(indices), zero, columns * length, zero)
    own_bits = op.Cast(op.Reshape(stream, op.Concat(last, bits, axis=0)), to=FLOAT)
    down = op.Range(op.Squeeze(bits - one), op.Constant(value_int=-1), op.Constant(value_int=-1))
    two = op.Constant(value_int=2)
    powers = op.Unsqueeze(op.Cast(op.Pow(two, down), to=FLOAT), one)
    own = op.Cast(
        op.Reshape(op.MatMul(own_bits, powers), op.Concat(columns, slices, axis=0)), to=INT32
    )
    # Before the first slices come the column's last ones, if it has all bits of a window.
    n_before = op.Div(before + bits - one, bits)
    none = op.Expand(op.Cast(zero, to=INT32), op.Concat(columns, n_before, axis=0))
    tail = op.Slice(op.Concat(none, own, axis=1), slices, slices + n_before, one)
    tail = tail * op.Cast(op.GreaterOrEqual(length, before), to=INT32)
    # A window is made of the numbers of neighbouring slices, less the bits that are too far away.
    step = op.Range(op.Constant(value_int=0), op.Squeeze(n_before + one), op.Constant(value_int=1))
    start = op.Range(op.Constant(value_int=0), op.Squeeze(slices), op.Constant(value_int=1))
    places = op.Unsqueeze(start, one) + op.Unsqueeze(step, zero)
    neighbours = op.Gather(op.Concat(tail, own, axis=1), places, axis=1)
    factors = op.Cast(op.Pow(two, bits * (n_before - step)), to=INT32)
    window = op.Mod(
        op.ReduceSum(neighbours * factors, last, keepdims=0),
        op.Cast(op.Pow(two, bits + before), to=INT32),
    )
    # The matrix, transposed: (in_features, out_features).
    padded = op.Reshape(op.Gather(table, window, axis=0), op.Concat(columns, last, axis=0))
    magnitude = op.Slice(padded, zero, rows, one) * op.Cast(scale, to=FLOAT)
    sign_bits = op.Slice(_own.Bits(signs), zero, columns * rows, zero)
    negative = op.Cast(op.Reshape(sign_bits, op.Concat(columns, rows, axis=0)), to=BOOL)
    weight = op.Where(negative, op.Neg(magnitude), magnitude)
    return op.CastLike(op.MatMul(op.Cast(x, to=FLOAT), weight), x)


def function_bodies() -> list[FunctionProto]:
    """Those of all operators, to be put into a model."""
    functions: list[Any] = [Bits, MatmulLeader]
    return [function.to_function_proto() for function in functions]
