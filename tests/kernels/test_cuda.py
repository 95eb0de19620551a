"""The CUDA kernels: emulated on the CPU against float64, and compiled for every GPU.

There is no GPU in these tests: the emulation (emulation/) is another driver below the launcher, so
that all but the machine code itself is run.
"""

import errno
import os
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from einsort_vla import compiling
from einsort_vla.codec import Curve
from einsort_vla.codec.curve.values import (
    CURVE_EIGHTHS,
    GRIDS,
    PERIOD,
    POLYNOMIALS,
)
from einsort_vla.errors import MissingDependency
from einsort_vla.kernels import BackendChoice, make_backend
from einsort_vla.kernels.cuda import backend, build, nvrtc
from tests.kernels.emulation.build import driver, emulator

CURVES = [(e, list(POLYNOMIALS)[e % len(POLYNOMIALS)]) for e in CURVE_EIGHTHS]
WINDOWS = [(19, window) for window in POLYNOMIALS]
SPECS = [Curve(e / PERIOD, window) for e, window in CURVES + WINDOWS]
SPECS += [Curve(bits, bits) for bits in GRIDS]
ROWS = [1, 2, 15, 16, 17, 64, 129]
# A K that is cut, with a last part of another length; N at and beside the edges of segments; tiles
# of 32 columns that are whole, and shorter.
SHAPES = [(67, 48), (720, 33), (1, 5), (256, 300), (2, 700), (130, 64), (5, 1), (300, 129)]
# Weights are exact, and sums in float32: what is left is the rounding of y.
TOLERANCE = {torch.float32: 2e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}
MACHINE_CUDA = 190  # of an ELF file


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    return emulator(tmp_path_factory.mktemp("emulation"))


class Case:
    """One product with random streams, which are valid whatever they are."""

    def __init__(self, spec, shape, m, dtype, seed, shift=0):
        generator = torch.Generator().manual_seed(seed)
        n = spec.layout(shape)["words"].shape[0]
        parts = {
            "words": torch.randint(-(2**15), 2**15, (n,), generator=generator).short(),
            "scale": torch.randint(90, 127, (shape[0],), generator=generator).byte(),
            "unit": torch.rand(1, generator=generator),
        }
        parts["scale"] += 128 * (torch.arange(shape[0]) % 3 == 1)
        parts["scale"][3::50] = 0
        self.label = (spec, shape, m, dtype)
        self.x = torch.randn(m, shape[1], generator=generator).to(dtype)
        self.weight = spec.decode(parts, shape)
        self.expected = self.x.double() @ self.weight.double().t()
        kind = backend.TYPE_NUMBERS[dtype]
        header = (m, shape[1], shape[0], spec.eighths, spec.window, kind, n, shift)
        self.request = struct.pack("<8qf", *header, float(parts["unit"]))
        self.request += b"".join(map(_bytes, (self.x, parts["words"], parts["scale"])))

    def take(self, answer):
        """Check what is the answer to this case, and return what comes after it."""
        expected = (self.expected, self.weight.to(self.x.dtype))
        sizes = [part.numel() * self.x.element_size() for part in expected]
        y, weight = (
            torch.frombuffer(bytearray(part), dtype=self.x.dtype)
            for part in (answer[: sizes[0]], answer[sizes[0] : sum(sizes)])
        )
        error = (y.double() - self.expected.flatten()).norm() / self.expected.norm()
        assert error < TOLERANCE[self.x.dtype], (*self.label, float(error))
        assert torch.equal(weight, expected[1].flatten()), self.label
        return answer[sum(sizes) :]


def _bytes(tensor):
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def run(emulated, cases, sm="87"):
    environment = {**os.environ, **emulated.environment, "EMULATED_SM": sm}
    requests = b"".join(case.request for case in cases)
    result = subprocess.run(
        [emulated.program], input=requests, capture_output=True, env=environment
    )
    assert result.returncode == 0, result.stderr.decode()[-3000:]
    answer = result.stdout
    for case in cases:
        answer = case.take(answer)
    assert not answer


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_every_code_and_number_of_rows(emulated, dtype):
    cases = [
        Case(spec, SHAPES[(i + j) % len(SHAPES)], m, dtype, seed=i)
        for i, spec in enumerate(SPECS)
        for j, m in enumerate(ROWS)
        if (i + j + list(TOLERANCE).index(dtype)) % len(ROWS) == 0
    ]
    run(emulated, cases)


def test_split_inputs_and_many_tiles(emulated):
    cases = [
        Case(spec, shape, m, dtype, seed=m)
        for spec in (Curve(2), Curve(2.125))
        for shape in ((96, 1040), (130, 777))
        for m, dtype in ((1, torch.float16), (16, torch.float32), (65, torch.bfloat16))
    ]
    run(emulated, cases)


def test_a_view_of_x_that_is_off_by_one_element(emulated):
    """Rows are a multiple of 16 bytes long, but none begins at one: vectors may not be loaded."""
    run(emulated, [Case(Curve(2), (67, 64), 17, t, seed=0, shift=1) for t in TOLERANCE])


def test_no_gpu_is_given_kernels_of_another(emulated):
    case = Case(Curve(2), (8, 8), 1, torch.float32, seed=0)
    run(emulated, [case], sm="86")
    run(emulated, [case], sm="89")  # by the kernels of 8.6
    for sm in ("72", "80", "90", "110"):
        with pytest.raises(AssertionError, match=rf"this GPU is sm_{sm}, .* sm_86 sm_87 only"):
            run(emulated, [case], sm=sm)


def test_the_backend_over_the_emulated_driver(tmp_path):
    driver(tmp_path, ["-O2", "-DEINSORT_CODES=CODE(17)"])
    inner = Path(__file__).with_name("emulated_cuda.py")
    variables = {"LD_LIBRARY_PATH": tmp_path, "XDG_CACHE_HOME": tmp_path, "EMULATED_SM": "87"}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", str(inner), "-p", "no:cacheprovider"],
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        cwd=Path(__file__).parents[2], capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-4000:]


JETPACK_6, THOR = (87, (12, 6)), (110, (13, 0))
OTHERS = [(sm, (13, 0)) for sm in build.SMS if (sm, (13, 0)) != THOR]


# A code takes a second or two to compile, until it is in the cache.
@pytest.mark.parametrize(
    ("sm", "version"),
    [JETPACK_6, THOR, *(pytest.param(*other, marks=pytest.mark.slow) for other in OTHERS)],
)
@pytest.mark.parametrize("eighths", [(8, 13, 40, 64), pytest.param(None, marks=pytest.mark.slow)])
def test_the_kernels_compile_for_every_gpu(sm, version, eighths):
    (compiler,) = (found for found in nvrtc.installed() if found.version == version)
    code = build.cubin(sm, compiler, eighths)
    (machine,), (flags,) = struct.unpack_from("<H", code, 18), struct.unpack_from("<I", code, 48)
    assert machine == MACHINE_CUDA
    assert sm in (flags & 0xFF, flags >> 8 & 0xFF)  # before CUDA 13, and since
    for name in ("prepare_curve", "reduce_curve", "decode_curve_e64", "matvec_curve_e13_half",
                 "matmul_curve_e40_bfloat"):  # fmt: skip
        assert f".text.{name}\0".encode() in code


def test_drivers_of_jetpack_6_get_cubins_of_its_cuda():
    """They do not load what CUDA 13 made."""
    found = {sm: nvrtc.compiler_for(sm).version for sm in build.SMS}
    assert found == {sm: (12, 6) if sm <= 90 else (13, 0) for sm in build.SMS}


def test_what_is_missing_is_named(monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert "there is no CUDA device" in backend.why_unavailable()
    compressed = SimpleNamespace(spec=Curve(2))
    with pytest.raises(MissingDependency, match="--backend cuda: there is no CUDA device"):
        make_backend(BackendChoice.parse("cuda"), compressed)
    with pytest.raises(MissingDependency, match=r"compiles for sm_999, only for sm_\d+, .*nvrtc"):
        nvrtc.compiler_for(999)
    with pytest.raises(MissingDependency, match=r"NVRTC 12\.6 does not compile for sm_120"):
        nvrtc.installed()[0].cubin(build.KERNELS, 120)
    monkeypatch.setattr(nvrtc, "installed", lambda: ())
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingDependency, match=r"no-such-compiler"):
        compiling.compiler_for(os.uname().machine)


@pytest.mark.parametrize("root", ["file", "no space"])
def test_a_cache_that_cannot_be_used_is_a_reason(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / root))
    if root == "file":
        (tmp_path / root).touch()
    else:
        monkeypatch.setattr(os, "replace", no_space)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backend, "_capabilities", lambda: [(8, 7)])
    monkeypatch.setattr(nvrtc.Nvrtc, "cubin", lambda *_: b"cubin")
    for cached in (backend.why_unavailable, backend._launcher, build.library):
        cached.cache_clear()
    try:
        assert f"cannot be kept in {tmp_path / root}" in str(backend.why_unavailable())
    finally:
        backend.why_unavailable.cache_clear()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "file"]


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_launcher_that_may_not_be_loaded_is_a_reason(tmp_path, monkeypatch):
    """As from a folder that is mounted without the right to run what is in it."""
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(build, "cubins", lambda *_: {})
    monkeypatch.setattr(build, "build", lambda *_: broken)
    with pytest.raises(MissingDependency, match=r"launcher .* cannot be kept in .*broken\.so"):
        build.library.__wrapped__((87,), ())


def test_the_launcher_is_made_anew_by_another_compiler_or_other_flags(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "link", lambda target, *_: target.touch())
    compiler = tmp_path / "compiler"
    monkeypatch.setenv("CXX", str(compiler))

    def name(version):
        compiler.write_text(f"#!/bin/sh\necho {version}\n")
        compiler.chmod(0o755)
        return build.build(tmp_path, {87: b"cubin"}).name

    names = [name("1"), name("2")]
    assert name("1") == names[0]
    for constant in ("FLAGS", "_ASSEMBLY"):
        monkeypatch.setattr(build, constant, getattr(build, constant)[:-1])
        names.append(name("1"))
    assert len(set(names)) == 4


def test_a_gpu_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"GPU {i}")
    monkeypatch.setattr(backend, "_capabilities", lambda: [(9, 0), (7, 5)])
    reason = backend.why_unavailable.__wrapped__()
    assert re.match(r"compute capability 8.0 is needed, and GPU 1 \(cuda:1\) has 7.5; ", reason)


def test_the_ops_have_shapes_without_a_gpu():
    x, word = torch.empty(3, 8, device="meta", dtype=torch.float16), torch.empty(9, device="meta")
    scale = torch.empty(5, device="meta")
    found = torch.ops.einsort.matmul_curve_cuda(x, word, scale, 1.0, 16, 13, 17)
    assert (found.shape, found.dtype) == ((3, 5), torch.float16)
    decoded = torch.ops.einsort.decode_curve_cuda(word, scale, 1.0, 8, 16, 13)
    assert (decoded.shape, decoded.dtype) == ((5, 8), torch.float32)
