"""The native library against the definition in float64, for every code, shape and processor."""

import gc
import platform
import shutil
import struct
import subprocess
import weakref
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from einsort_vla.codec import CompressedTensor, Curve, decode
from einsort_vla.codec.curve.scales import scales
from einsort_vla.codec.curve.values import CURVE_EIGHTHS, GRIDS, PERIOD, POLYNOMIALS
from einsort_vla.codec.rotation import rotate
from einsort_vla.compiling import MARCH, compiler_for
from einsort_vla.errors import MissingDependency, ShapeError
from einsort_vla.kernels import BackendChoice, decode_fast, make_backend
from einsort_vla.kernels.native import library
from einsort_vla.layers import CompressedLinear
from einsort_vla.native_flags import OWN, SOURCES
from einsort_vla.native_library import HERE, native_library

CPU, INT8 = BackendChoice.parse("cpu"), BackendChoice.parse("cpu activations=int8")
CODES = [Curve(k / PERIOD, window) for k in CURVE_EIGHTHS for window in (13, 16)]
CODES += [Curve(2.0, window) for window in POLYNOMIALS] + [Curve(bits, bits) for bits in GRIDS]
ROWS = [1, 2, 4, 5, 15, 16, 17, 64, 129]
MARCHES = ["x86-64", "x86-64-v3", "x86-64-v4"]


def random_parts(spec, shape, seed=0):
    """Any words at all: decoding must not depend on who wrote them."""
    generator = torch.Generator().manual_seed(seed)
    stored = spec.layout(shape)
    words = torch.randint(-(2**15), 2**15, stored["words"].shape, generator=generator)
    codes = torch.randint(100, 128, (shape[0],), generator=generator)
    codes += 128 * torch.randint(0, 2, codes.shape, generator=generator)
    parts = {"words": words.to(torch.int16), "scale": codes.to(torch.uint8),
             "unit": torch.tensor([0.37])}  # fmt: skip
    return CompressedTensor(spec, shape, parts), generator


def write_files(folder, compressed, x):
    """What example.c reads, and the names of its three files."""
    spec, parts = compressed.spec, compressed.parts
    head = struct.pack("6qf", *compressed.shape, spec.eighths, spec.window, spec.rotated,
                       parts["words"].numel(), parts["unit"])  # fmt: skip
    content = parts["words"].numpy().tobytes() + parts["scale"].numpy().tobytes()
    (folder / "matrix.bin").write_bytes(head + content)
    (folder / "x.bin").write_bytes(x.numpy().tobytes())
    return [str(folder / name) for name in ("matrix.bin", "x.bin", "y.bin")]


@contextmanager
def threads(n):
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def forget_library():
    for cached in (library.library, native_library):
        cached.cache_clear()


def error(compressed, x, bias=None, choice=CPU):
    """Relative to the sums of magnitudes: a single output may well cancel."""
    weight = decode(compressed).double()
    more = 0 if bias is None else bias.double()
    found = make_backend(choice, compressed).linear(x, bias)
    assert (found.dtype, found.shape) == (x.dtype, (*x.shape[:-1], compressed.shape[0]))
    expected = x.double() @ weight.t() + more
    size = x.double().abs() @ weight.abs().t() + (0 if bias is None else more.abs())
    return float((found.double() - expected).norm() / size.norm())


@pytest.mark.parametrize("spec", CODES, ids=str)
def test_decoding_is_the_definition_bit_for_bit(spec):
    for shape in ((1, 1), (8, 32), (131, 33), (300, 70)):
        compressed, _ = random_parts(spec, shape)
        assert torch.equal(decode_fast(compressed), decode(compressed)), shape


@settings(max_examples=60, deadline=None)
@given(
    spec=st.sampled_from(CODES), rotated=st.booleans(), rows=st.integers(1, 300),
    columns=st.integers(1, 100), n=st.integers(1, 9), n_threads=st.integers(1, 3),
)  # fmt: skip
def test_any_shape_on_any_number_of_threads(spec, rotated, rows, columns, n, n_threads):
    spec = Curve(spec.bits, spec.window, rotated)
    compressed, generator = random_parts(spec, (rows, columns), seed=rows)
    x = torch.randn(n, columns, generator=generator)
    with threads(n_threads):
        found = make_backend(CPU, compressed).linear(x, None)
        assert error(compressed, x) < 2e-5
        torch.testing.assert_close(decode_fast(compressed), decode(compressed), rtol=0, atol=3e-5)
    with threads(1):
        assert torch.equal(found, make_backend(CPU, compressed).linear(x, None))


def test_every_number_of_rows_and_type():
    compressed, generator = random_parts(Curve(2.25, rotated=True), (200, 1100))
    bias = torch.randn(200, generator=generator)
    for n in ROWS:
        x = torch.randn(n, 1100, generator=generator)
        for dtype, bound in ((torch.float32, 2e-5), (torch.float16, 4e-4), (torch.bfloat16, 3e-3)):
            assert error(compressed, x.to(dtype), bias) < bound, (n, dtype)
        assert error(compressed, x, bias, INT8) < 5e-3


@pytest.mark.parametrize("activations", [16, 8])
@pytest.mark.parametrize("n", [1, 7])
def test_sums_are_exact(n, activations):
    """What the inputs are rounded to is all that is lost: the sum itself is a whole number."""
    spec, (rows, columns) = Curve(3.0, rotated=True), (40, 4160)
    compressed, generator = random_parts(spec, (rows, columns))
    x = torch.randn(n, columns, generator=generator)
    plain = CompressedTensor(Curve(3.0), compressed.shape, compressed.parts)
    choice = CPU if activations == 16 else INT8
    found = make_backend(choice, plain).linear(x, None)
    most = x.abs().amax(1, keepdim=True)
    top = 2 ** (activations - 1) - 1
    whole = (x * (torch.tensor(float(top)) / most)).round()
    unit = scales(compressed.parts["scale"], compressed.parts["unit"])
    values = decode(plain).double() / unit[:, None]
    sums = (whole.double() @ values.round().t()).float()
    assert torch.equal(found, sums * (unit * (most / top)))
    assert torch.equal(
        make_backend(choice, compressed).linear(x, None).isfinite(), torch.ones(n, rows).bool()
    )


def test_the_largest_sums_do_not_overflow():
    columns = 3 * 4096 + 32
    parts = {"words": torch.full((8 * columns * 1,), -1).to(torch.int16)[: columns * 4],
             "scale": torch.full((8,), 127).to(torch.uint8), "unit": torch.ones(1)}  # fmt: skip
    compressed = CompressedTensor(Curve(8.0, 8), (8, columns), parts)
    weight = decode(compressed)
    assert weight.unique().tolist() == [127]
    for n in (1, 3):
        x = torch.ones(n, columns)
        found = make_backend(CPU, compressed).linear(x, None)
        assert torch.equal(found, torch.full((n, 8), 127.0 * columns))


def test_inputs_that_are_no_numbers_zero_or_none():
    compressed, generator = random_parts(Curve(2.0, rotated=True), (20, 64))
    x = torch.randn(4, 64, generator=generator)
    x[1, 3], x[2] = torch.nan, 0
    x[3, 5] = torch.inf
    y = make_backend(CPU, compressed).linear(x, None)
    assert y[0].isfinite().all()
    assert y[1].isnan().all()
    assert (y[2] == 0).all()
    assert y[3].isnan().all()
    assert make_backend(CPU, compressed).linear(torch.zeros(2, 0, 64), None).shape == (2, 0, 20)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="which flags there are")
@pytest.mark.parametrize("march", MARCHES)
def test_every_processor_has_the_same_bits(march, monkeypatch):
    """Built for them here, as far as this one can run it."""
    capability = torch.backends.cpu.get_cpu_capability()
    if MARCHES.index(march) > ("DEFAULT", "AVX2", "AVX512").index(capability):
        pytest.skip(f"no {march}")
    compressed, generator = random_parts(Curve(1.625, rotated=True), (200, 240))
    inputs = [torch.randn(n, 240, generator=generator) for n in (1, 6)]

    def found():
        return [make_backend(CPU, compressed).linear(x, None) for x in inputs]

    here = found()
    monkeypatch.setenv(MARCH, march)
    forget_library()
    try:
        assert all(torch.equal(a, b) for a, b in zip(here, found(), strict=True))
        assert decode_fast(compressed).isfinite().all()
    finally:
        forget_library()


def test_a_matrix_that_does_not_fit_is_refused():
    compressed, _ = random_parts(Curve(2.0), (20, 64))
    words, scale = compressed.parts["words"], compressed.parts["scale"]
    decode_curve = torch.ops.einsort.decode_curve
    for arguments in ((words[:-1], scale, 1.0, 64, 16, 13), (words, scale[:9], 1.0, 64, 16, 13),
                      (words, scale, 1.0, 0, 16, 13)):  # fmt: skip
        with pytest.raises(ShapeError, match="cannot be read: the"):
            decode_curve(*arguments, False)
    with pytest.raises(ShapeError, match="there is no such code"):
        decode_curve(words, scale, 1.0, 64, 16, 11, False)


def test_the_ops_are_whole_and_compile():
    compressed, generator = random_parts(Curve(2.0, rotated=True), (33, 20))
    x = torch.randn(7, 20, generator=generator)
    arguments = make_backend(CPU, compressed)._arguments
    torch.library.opcheck(torch.ops.einsort.matmul_curve.default, (x, *arguments, None, 16))
    torch.library.opcheck(torch.ops.einsort.decode_curve.default, arguments)
    layer = nn.Sequential(CompressedLinear(compressed, None, CPU), nn.GELU())
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), layer(x))


def test_nothing_is_kept_of_the_inputs():
    """Not even in a cycle: activations of a large model would pile up between collections."""
    compressed, generator = random_parts(Curve(2.0), (40, 24))
    backend = make_backend(CPU, compressed)
    gc.disable()
    try:
        with torch.inference_mode():
            x = torch.randn(9, 24, generator=generator)
            y = backend.linear(x, None)
            left = weakref.ref(x), weakref.ref(y)
            del x, y
            assert [reference() for reference in left] == [None, None]
    finally:
        gc.enable()


def test_a_rotation_is_that_of_the_codec():
    """Signs and cosines are made anew in C++."""
    for n in (1, 3, 40, 96, 240):
        turned, _ = random_parts(Curve(8.0, 8, True), (n, n))
        plain = decode(CompressedTensor(Curve(8.0, 8), (n, n), turned.parts))
        expected = plain @ rotate(torch.eye(n)).t()
        torch.testing.assert_close(decode_fast(turned), expected, rtol=0, atol=5e-5)


@pytest.mark.parametrize("machine", sorted({platform.machine(), "aarch64"}))
def test_the_example_in_c_has_the_same_bits(machine, tmp_path):
    """For ARM by NEON, in an emulator."""
    emulator = [] if machine == platform.machine() else [f"qemu-{machine}-static"]
    try:
        compiler = compiler_for(machine)
    except MissingDependency as error:
        pytest.skip(str(error))
    if emulator and not shutil.which(emulator[0]):
        pytest.skip(f"no {emulator[0]}")
    level = [] if emulator else ["-march=native"]
    sources = [*(HERE / name for name in SOURCES), "-x", "c", HERE / "example.c"]
    flags = [*OWN, "-O2", "-std=c++17", "-static", "-w", *level, "-I", HERE]
    subprocess.run([compiler, *flags, *sources, "-o", tmp_path / "example"], check=True)
    for spec, shape, n in ((Curve(1.625, 16), (200, 100), 1), (Curve(2.0, 13, True), (131, 96), 7),
                           (Curve(6.0, 6), (9, 33), 2)):  # fmt: skip
        compressed, generator = random_parts(spec, shape)
        x = torch.randn(n, shape[1], generator=generator)
        names = write_files(tmp_path, compressed, x)
        told = subprocess.run(
            [*emulator, str(tmp_path / "example"), *names, "16"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ("NEON" in told.stdout) == (machine == "aarch64")
        found = torch.frombuffer((tmp_path / "y.bin").read_bytes(), dtype=torch.float32)
        assert torch.equal(found.view(n, -1), make_backend(CPU, compressed).linear(x, None))
    matrix = (tmp_path / "matrix.bin").read_bytes()
    (tmp_path / "matrix.bin").write_bytes(matrix[:-1])
    cut = subprocess.run([*emulator, str(tmp_path / "example"), *names, "16"], capture_output=True)
    assert (cut.returncode, b"cut off" in cut.stderr) == (1, True)
