"""The Triton kernels in Triton's interpreter, on the CPU; test_triton.py runs this in a process of
its own, since the interpreter must be chosen before Triton is imported.
"""

import itertools

import numpy as np
import pytest
import torch
import triton
from torch import nn
from triton.runtime import interpreter

from einsort_vla.codec import Leader, decode, encode, tables
from einsort_vla.errors import UsageError
from einsort_vla.kernels import BackendChoice, make_backend
from einsort_vla.kernels.triton import ops
from einsort_vla.layers import CompressedLinear

assert triton.knobs.runtime.interpret
TRITON = BackendChoice("triton")
TABLES = [Leader(d, b, s) for d, b, s in sorted(tables.available())]
GRIDS = [Leader(1, b, 0) for b in (8, 14)]
ROWS = [1, 2, 15, 16, 17, 64, 129]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
COLUMNS = 20  # more than one block of the matvec kernel, and no multiple of it


@pytest.fixture(autouse=True)
def bfloat16_dot(monkeypatch):
    """The interpreter holds bfloat16 as integers, which its `dot` multiplies as they are."""
    original = interpreter.InterpreterBuilder.create_dot

    def dot(self, a, b, *others):
        a, b = (
            interpreter.TensorHandle(
                (part.data.astype(np.uint32) << 16).view(np.float32), triton.language.float32
            ) if part.dtype == triton.language.bfloat16 else part
            for part in (a, b)
        )  # fmt: skip
        return original(self, a, b, *others)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", dot)


def coded(spec, shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return encode(torch.randn(shape, generator=generator), spec), generator


def error(compressed, x, bias):
    weight = decode(compressed).double()
    expected = x.double() @ weight.t() + (0 if bias is None else bias.double())
    found = make_backend(TRITON, compressed).linear(x, bias)
    assert (found.dtype, found.shape) == (x.dtype, expected.shape)
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("spec", [*TABLES, *GRIDS], ids=str)
def test_every_table_at_every_number_of_rows(spec):
    """Each table with one type at each number of rows, each type with a third of the tables."""
    compressed, generator = coded(spec, (67, COLUMNS))
    bias = torch.randn(67, generator=generator)
    dtypes = itertools.cycle(TOLERANCE.items())
    for _ in range((TABLES + GRIDS).index(spec)):
        next(dtypes)
    for n, (dtype, tolerance) in zip(ROWS, dtypes, strict=False):
        x = torch.randn(n, COLUMNS, generator=generator).to(dtype)
        assert error(compressed, x, bias.to(dtype)) < tolerance, (n, dtype)


@pytest.mark.parametrize("spec", [Leader(2, 3, 5), Leader(8, 1, 7)], ids=str)
@pytest.mark.parametrize(("n_out", "n_in"), [(1, 1), (130, 70), (144, 33), (7, 100)])
def test_odd_shapes_and_parts(spec, n_out, n_in):
    """Columns shorter than a window, several blocks of each kind, and sums in several parts."""
    compressed, generator = coded(spec, (n_out, n_in), seed=n_out)
    for n, dtype in itertools.product([3, 18], TOLERANCE):
        x = torch.randn(n, n_in, generator=generator).to(dtype)
        assert error(compressed, x, None) < TOLERANCE[dtype], (n, dtype)


def test_places_beyond_31_bits_are_counted_in_64(monkeypatch):
    compressed, generator = coded(Leader(2, 4, 4), (40, 24))
    x = torch.randn(3, 24, generator=generator)
    expected = make_backend(TRITON, compressed).linear(x, None)
    monkeypatch.setattr(ops, "WIDE_BITS", 0)
    assert torch.equal(make_backend(TRITON, compressed).linear(x, None), expected)


def test_refined_and_rotated_codes_and_empty_batches():
    for spec in (Leader(2, 2, 6, refined=True), Leader(2, 2, 6, rotated=True)):
        compressed, generator = coded(spec, (40, 24))
        for dtype, tolerance in TOLERANCE.items():
            x = torch.randn(3, 24, generator=generator).to(dtype)
            assert error(compressed, x, None) < tolerance
    found = make_backend(TRITON, compressed).linear(torch.zeros(2, 0, 24), None)
    assert found.shape == (2, 0, 40)


def test_the_op_is_whole_and_compiles_and_streams_are_held_once():
    compressed, generator = coded(Leader(2, 3, 5), (33, 20))
    layer = CompressedLinear(compressed, torch.randn(33, generator=generator), TRITON)
    x = torch.randn(7, 20, generator=generator)
    stored = {name: part.clone() for name, part in layer.state_dict().items()}
    with torch.inference_mode():
        expected = layer(x)
    assert all(torch.equal(part, stored[name]) for name, part in layer.state_dict().items())
    streams = layer._backend.matrix
    for words, part in zip(streams, (layer.weight_signs, layer.weight_indices), strict=False):
        assert words.data_ptr() == part.data_ptr()
        assert words.numel() * 4 >= part.numel() + 4  # a word may be read after the last
    torch.library.opcheck(
        torch.ops.einsort.matmul_leader_triton.default, (x, *streams, None, 2, 3, 5)
    )
    compiled = torch.compile(nn.Sequential(layer, nn.GELU()), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), nn.functional.gelu(expected))
    layer.load_state_dict(stored)
    assert torch.equal(layer(x), expected)


def test_an_input_elsewhere_or_of_another_type_is_refused(monkeypatch):
    made = make_backend(TRITON, coded(Leader(2, 2, 6), (8, 8))[0])
    for dtype in (torch.float64, torch.int32):
        with pytest.raises(UsageError, match=f"or bfloat16 on a GPU; the input is {dtype}"):
            made.linear(torch.zeros(1, 8, dtype=dtype), None)
    monkeypatch.setattr(made, "kind", "cuda")
    with pytest.raises(UsageError, match=r"on a GPU; the input is torch\.float32 on cpu"):
        made.linear(torch.zeros(1, 8), None)
