"""Compiles curve.cu for GPUs, and the launcher for this machine or another, once each."""

import ctypes
import functools
import platform
import struct
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from einsort_vla import compiling
from einsort_vla.kernels.cuda import nvrtc
from einsort_vla.kernels.cuda.nvrtc import Nvrtc
from einsort_vla.private import cache_folder

FOLDER = Path(__file__).parent
KERNELS, LAUNCHER = FOLDER / "curve.cu", FOLDER / "launch.cpp"
POLYNOMIALS = FOLDER.parent / "native/polynomials.h"  # which the launcher includes
# A100, GeForce 30, Orin, GeForce 40, H100, Thor, GeForce 50.
SMS = (80, 86, 87, 89, 90, 110, 120)
FLAGS = (
    "-O2", "-std=c++17", "-shared", "-fPIC", "-Wall", "-fvisibility=hidden",
    "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL",
)  # fmt: skip

_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


class Matrix(ctypes.Structure):
    """`EinsortMatrix` of launch.h."""

    _fields_ = (
        ("words", _POINTER), ("scale", _POINTER), ("n", _INT64), ("k", _INT64),
        ("unit", ctypes.c_float), ("eighths", _INT), ("window", _INT),
    )  # fmt: skip


def cubins(sms: Sequence[int] = SMS, eighths: Sequence[int] | None = None) -> dict[int, bytes]:
    """The kernels' machine code by SM (10 x major + minor of the compute capability), cached.

    Raises:
        MissingDependency: there is no NVRTC for one of them.
    """
    return {sm: cubin(sm, nvrtc.compiler_for(sm), eighths) for sm in sms}


def cubin(sm: int, compiler: Nvrtc, eighths: Sequence[int] | None = None) -> bytes:
    """The kernels' machine code by one version of NVRTC, cached.

    Args:
        sm: see `cubins`.
        compiler: of a version that knows `sm`.
        eighths: the codes that it is for, a second or so each; all of them without.

    Raises:
        MissingDependency: it does not compile for `sm`, or the cache cannot be used.
    """
    codes = None if eighths is None else " ".join(f"CODE({own})" for own in eighths)
    flags = [] if codes is None else [f"-DEINSORT_CODES={codes}"]
    sources = [path.read_bytes() for path in sorted([KERNELS, *FOLDER.glob("*.cuh")])]
    key = compiling.fingerprint(*sources, sm, compiler.version, flags)
    with compiling.kept_in_cache("CUDA kernels"):
        return compiling.made_once(
            cache_folder() / f"curve-sm_{sm}-{key}.cubin",
            lambda made: made.write_bytes(compiler.cubin(KERNELS, sm, flags)),
        ).read_bytes()


@functools.cache
def library(sms: tuple[int, ...], eighths: tuple[int, ...]) -> ctypes.CDLL:
    """The launcher (launch.h) with kernels of some codes for some SMs.

    Raises:
        MissingDependency: there is no NVRTC for one of them, no C++ compiler, or the cache cannot
            be used.
    """
    made = cubins(sms, eighths)
    with compiling.kept_in_cache("the launcher of the CUDA kernels"):
        loaded = ctypes.CDLL(str(build(cache_folder(), made)))
    loaded.einsort_count_words.argtypes = (_POINTER,)
    loaded.einsort_count_words.restype = _INT64
    loaded.einsort_workspace_bytes.argtypes = (_POINTER, _INT64, _INT)
    loaded.einsort_workspace_bytes.restype = _INT64
    loaded.einsort_matmul_curve.argtypes = (
        _POINTER, _POINTER, _POINTER, _INT64, _INT, _POINTER, _POINTER,
    )  # fmt: skip
    loaded.einsort_decode_curve.argtypes = (_POINTER, _POINTER, _INT, _POINTER, _POINTER)
    loaded.einsort_last_error.restype = ctypes.c_char_p
    return loaded


def build(folder: Path, cubins: Mapping[int, bytes]) -> Path:
    """The launcher as a shared library in `folder`; it is compiled if it is not there.

    Raises:
        MissingDependency: there is no C++ compiler, or it fails.
    """
    compiler = compiling.compiler_for(platform.machine())
    read = [LAUNCHER, *sorted(FOLDER.glob("*.h")), POLYNOMIALS]
    sources = [*(path.read_bytes() for path in read), _blob(cubins)]
    version = compiling.version_of(compiler)
    name = f"cuda-{compiling.fingerprint(*sources, compiler, FLAGS, _ASSEMBLY, version)}.so"
    return compiling.made_once(folder / name, lambda made: link(made, compiler, [LAUNCHER], cubins))


def link(
    target: Path,
    compiler: str,
    sources: Sequence[Path],
    cubins: Mapping[int, bytes],
    flags: Sequence[str] = (),
) -> None:
    """Makes a shared library of C++ sources, with cubins inside for the launcher.

    Raises:
        MissingDependency: the compiler fails.
    """
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        assembly = Path(work) / "cubins.S"
        write_cubins(assembly, cubins)
        command = [compiler, *FLAGS, f"-I{FOLDER}", f"-I{POLYNOMIALS.parent}", *flags, *sources]
        names = ", ".join(source.name for source in sources)
        compiling.compile_library(
            [*command, f"-Wa,-I{work}", assembly, "-o", target, "-ldl"], names
        )


def write_cubins(assembly: Path, cubins: Mapping[int, bytes]) -> None:
    """Source that the launcher is linked with, and beside it what it includes.

    The assembler finds it by `-Wa,-I` and the folder, or in the folder itself.
    """
    binary = assembly.with_suffix(".bin")
    binary.write_bytes(_blob(cubins))
    assembly.write_text(_ASSEMBLY.format(binary.name))


# A note without which the linker would make the stack executable.
_ASSEMBLY = """
.section .note.GNU-stack, "", %progbits
.section .rodata
.balign 64
.hidden einsort_cubins
.globl einsort_cubins
einsort_cubins:
.incbin "{}"
"""
_ALIGNMENT = 64  # of a cubin in the blob


def _blob(cubins: Mapping[int, bytes]) -> bytes:
    """What launch.cpp reads as `einsort_cubins`."""
    header = 8 * (1 + 3 * len(cubins))
    entries, data = [len(cubins)], b""
    for sm, code in sorted(cubins.items()):
        data += bytes(-(header + len(data)) % _ALIGNMENT)
        entries += [sm, header + len(data), len(code)]
        data += code
    return struct.pack(f"<{len(entries)}q", *entries) + data
