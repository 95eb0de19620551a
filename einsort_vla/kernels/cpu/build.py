"""Compiles the C++ here for this machine once, and keeps the library in the user's cache."""

import ctypes
import functools
import os
import platform
from pathlib import Path

from einsort_vla.errors import MissingDependency
from einsort_vla.kernels import compiling
from einsort_vla.private import cache_folder

SOURCES = tuple(Path(__file__).with_name(name) for name in ("leader.cpp", "unrotate.cpp"))
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-Wall")
# Threads of the pool that torch's own operators use, on Linux. Others that are started at each call
# cost more than what they decode.
OPENMP = "-fopenmp"
NATIVE = {"x86_64": "-march=native", "AMD64": "-march=native", "aarch64": "-mcpu=native"}
# For debugging: what the code is built for instead of this processor, such as x86-64-v3.
MARCH = "EINSORT_MARCH"

_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_MATRIX = (_POINTER, _INT64, _POINTER, _INT64, _POINTER, _INT64, _INT, _INT, _INT, _INT64, _INT)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled functions.

    Raises:
        MissingDependency: there is no C++ compiler, it fails, or the cache cannot be used.
    """
    with compiling.kept_in_cache("the compiled kernels"):
        loaded = ctypes.CDLL(str(build(cache_folder())))
    loaded.einsort_decode_leader.argtypes = (*_MATRIX, _POINTER, _INT64)
    loaded.einsort_matmul_leader.argtypes = (*_MATRIX, _POINTER, _INT64, _POINTER, _INT64)
    loaded.einsort_unrotate.argtypes = (
        _POINTER, _INT64, _INT64, _INT64, _INT64, _POINTER, _POINTER, _INT,
    )  # fmt: skip
    loaded.einsort_decode_leader.restype = None
    loaded.einsort_matmul_leader.restype = None
    loaded.einsort_unrotate.restype = None
    return loaded


def build(folder: Path) -> Path:
    """The library in `folder`; it is compiled if it is not there.

    Raises:
        MissingDependency: there is no C++ compiler, or it fails.
    """
    compiler, march = compiling.compiler_for(platform.machine()), os.environ.get(MARCH)
    processor = f"-march={march}" if march else NATIVE.get(platform.machine())
    flags = [*FLAGS, *filter(None, [processor])]

    def compile_(made: Path) -> None:
        command = [compiler, *flags, *SOURCES, "-o", made]
        try:
            compiling.compile_library([*command, OPENMP], "the kernels")
        except MissingDependency:  # Apple's compiler has no OpenMP: for one thread
            compiling.compile_library([*command, "-Wno-unknown-pragmas"], "the kernels")

    sources = [source.read_bytes() for source in SOURCES]
    version = compiling.version_of(compiler)
    name = f"leader-{compiling.fingerprint(*sources, version, flags, OPENMP, _processor())}.so"
    return compiling.made_once(folder / name, compile_)


def _processor() -> list[str]:
    """What `native` means here."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    names = ("flags", "features", "model name")
    return [line for line in lines if line.lower().startswith(names)][:2]
