"""The calls of the CUDA driver against its own header, and machines without a GPU."""

import ctypes
import re
import sysconfig
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path

import pytest

from einsort_vla.errors import EngineError, MissingDependency
from einsort_vla.runtime import gpu
from tests.export.emulated_cuda import EmulatedDriver

_VALUES = {
    "CUdeviceptr": c_uint64, "size_t": c_size_t, "unsigned int": c_uint, "int": c_int,
    "CUdevice": c_int, "CUresult": c_int, "CUdevice_attribute": c_int, "CUstreamCaptureMode": c_int,
    "unsigned long long": ctypes.c_ulonglong, "CUcontext": c_void_p, "CUstream": c_void_p,
    "CUgraph": c_void_p, "CUgraphExec": c_void_p, "void": c_void_p, "char": c_char_p,
}  # fmt: skip


def ctype(declared):
    """Of a parameter such as `const void *srcHost`."""
    kind, stars = re.fullmatch(r"(?:const )?([\w ]+?) ?(\**)\w*", declared).groups()
    if kind in ("void", "char"):
        return c_void_p if len(stars) == 1 else POINTER(_VALUES[kind])
    return POINTER(_VALUES[kind]) if stars else _VALUES[kind]


def test_every_call_is_as_the_header_declares_it():
    packages = Path(sysconfig.get_path("purelib"))
    headers = [*packages.glob("nvidia/*/include/cuda.h"), *packages.glob("triton/**/cuda.h")]
    if not headers:
        pytest.skip("no package here has cuda.h")
    text = headers[0].read_text()
    for symbol, kinds in gpu.SIGNATURES.items():
        name = symbol.removesuffix("_v2").removesuffix("WithFlags")
        macro = re.search(rf"#define {name} +(?:__CUDA_API_PTSZ\()?(\w+)", text)
        assert symbol == (macro[1] if macro else name)
        declared = re.search(rf"CUresult CUDAAPI {name}\(([^)]*)\)", text)[1].split(", ")
        assert len(kinds) == len(declared), symbol
        for own, parameter in zip(kinds, declared, strict=True):
            kind = ctype(parameter)
            assert own is kind or (own, kind) == (c_uint64, ctypes.c_ulonglong), (symbol, parameter)


@pytest.fixture
def library(monkeypatch):
    """Puts another driver in."""
    gpu._driver.cache_clear()
    yield lambda made: monkeypatch.setattr(gpu, "_library", lambda: made)
    gpu._driver.cache_clear()


def test_machines_without_a_gpu(library, monkeypatch):
    def absent(name):
        raise OSError(f"{name}: cannot open shared object file")

    with monkeypatch.context() as patched:
        patched.setattr(ctypes, "CDLL", absent)
        with pytest.raises(MissingDependency, match=r"no CUDA driver here: libcuda\.so\.1: cannot"):
            gpu.compute_capability()
    driver = EmulatedDriver()
    driver.cuInit = lambda flags: 100  # CUDA_ERROR_NO_DEVICE
    library(driver.library())
    with pytest.raises(MissingDependency, match=r"no CUDA device here \(CUDA_ERROR_UNKNOWN, 100\)"):
        gpu.compute_capability()


def test_what_is_asked_of_the_first_gpu(library):
    driver = EmulatedDriver()
    library(driver.library())
    assert (gpu.device_name(), gpu.compute_capability()) == ("Emulated", 89)
    assert gpu.cuda_release() == (12, 6)
    assert (gpu.free_bytes(), gpu.used_bytes()) == (10**6, 10**9 - 10**6)


def test_memory_that_is_not_there(library):
    driver = EmulatedDriver()
    library(driver.library())
    driver.failing = 1
    with pytest.raises(EngineError, match=r"no 12\.3 MB for the policy .*; 1\.0 MB are free"):
        gpu.Memory(12_300_000)
    driver.failing = 2
    with pytest.raises(EngineError, match=r"cannot pin 4\.5 MB .*: CUDA_ERROR_OUT_OF_MEMORY, 2"):
        gpu.PinnedMemory(4_500_000)
    assert driver.bugs == []
