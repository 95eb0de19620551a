"""Compiles the C++ here for this machine once, and keeps the library in the user's cache."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from einsort_vla.errors import MissingDependency
from einsort_vla.kernels.cache import cache, kept_in_cache

SOURCES = tuple(Path(__file__).with_name(name) for name in ("leader.cpp", "unrotate.cpp"))
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-Wall")
# Threads of the pool that torch's own operators use, on Linux. Others that are started at each call
# cost more than what they decode.
OPENMP = "-fopenmp"
NATIVE = {"x86_64": "-march=native", "AMD64": "-march=native", "aarch64": "-mcpu=native"}
# For debugging: what the code is built for instead of this processor, such as x86-64-v3.
MARCH = "EINSORT_MARCH"
COMPILERS = ("c++", "g++", "clang++")

_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
_MATRIX = (_POINTER, _INT64, _POINTER, _INT64, _POINTER, _INT64, _INT, _INT, _INT, _INT64, _INT)


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled functions.

    Raises:
        MissingDependency: there is no C++ compiler, it fails, or the cache cannot be used.
    """
    with kept_in_cache("the compiled kernels"):
        loaded = ctypes.CDLL(str(build(cache())))
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
    compiler = _compiler()
    march = os.environ.get(MARCH)
    processor = f"-march={march}" if march else NATIVE.get(platform.machine())
    flags = [*FLAGS, *filter(None, [processor])]
    target = folder / f"leader-{_fingerprint(compiler, flags)}.so"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / target.name
        _compile([compiler, *flags, *map(str, SOURCES), "-o", str(made)])
        os.replace(made, target)  # whole, whoever else compiles at the same time
    return target


def _compile(command: list[str]) -> None:
    """With OpenMP, or where the compiler has none, as Apple's, for one thread."""
    for threads in (OPENMP, "-Wno-unknown-pragmas"):
        result = subprocess.run([*command, threads], capture_output=True, text=True)
        if not result.returncode:
            return
    raise MissingDependency(f"{command[0]} cannot compile the kernels: {result.stderr[-800:]}")


def _compiler() -> str:
    named = os.environ.get("CXX")
    found = next(filter(None, map(shutil.which, [named] if named else COMPILERS)), None)
    if found is None:
        raise MissingDependency(
            f"a C++ compiler is needed ({named or ', '.join(COMPILERS)}), and none is here. On "
            "Debian or Ubuntu: apt-get install g++; or use --backend decoded."
        )
    return found


def _fingerprint(compiler: str, flags: list[str]) -> str:
    """Of the sources, the compiler and the processor, which `native` means."""
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    cpu = Path("/proc/cpuinfo")
    features = [
        line for line in (cpu.read_text() if cpu.is_file() else "").splitlines()
        if line.lower().startswith(("flags", "features", "model name"))
    ][:2]  # fmt: skip
    sources = [source.read_text(encoding="utf-8") for source in SOURCES]
    text = "\n".join([*sources, version, *flags, OPENMP, *features])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
