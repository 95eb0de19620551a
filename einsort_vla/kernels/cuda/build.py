"""Compiles leader.cu for GPUs, and the launcher for this machine or another, once each."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from einsort_vla.errors import MissingDependency
from einsort_vla.kernels.cache import cache, kept_in_cache
from einsort_vla.kernels.cuda.nvrtc import Nvrtc, compiler_for

FOLDER = Path(__file__).parent
KERNELS, LAUNCHER = FOLDER / "leader.cu", FOLDER / "launch.cpp"
# A100, GeForce 30, Orin, GeForce 40, H100, Thor, GeForce 50.
SMS = (80, 86, 87, 89, 90, 110, 120)
COMPILERS = ("c++", "g++", "clang++")
FLAGS = (
    "-O2", "-std=c++17", "-shared", "-fPIC", "-Wall", "-fvisibility=hidden",
    "-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL",
)  # fmt: skip

_POINTER, _INT64, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int


def cubins(sms: Sequence[int] = SMS) -> dict[int, bytes]:
    """The kernels' machine code by SM (10 x major + minor of the compute capability), cached.

    Raises:
        MissingDependency: there is no NVRTC for one of them.
    """
    return {sm: cubin(sm, compiler_for(sm)) for sm in sms}


def cubin(sm: int, nvrtc: Nvrtc) -> bytes:
    """The kernels' machine code by one version of NVRTC, cached.

    Raises:
        MissingDependency: it does not compile for `sm`, or the cache cannot be used.
    """
    sources = sorted([KERNELS, *FOLDER.glob("*.cuh")])
    parts = [path.read_bytes() for path in sources]
    name = f"leader-sm_{sm}-{_fingerprint(*parts, repr((sm, nvrtc.version)).encode())}.cubin"
    target = cache() / name
    with kept_in_cache("CUDA kernels"):
        if not target.is_file():
            _write(target, nvrtc.cubin(KERNELS, sm))
        return target.read_bytes()


@functools.cache
def library(sms: tuple[int, ...]) -> ctypes.CDLL:
    """The launcher (launch.h) with kernels for some SMs.

    Raises:
        MissingDependency: there is no NVRTC for one of them, no C++ compiler, or the cache cannot
            be used.
    """
    made = cubins(sms)
    with kept_in_cache("the launcher of the CUDA kernels"):
        loaded = ctypes.CDLL(str(build(cache(), made)))
    loaded.einsort_workspace_bytes.argtypes = (_INT64, _INT64, _INT64, _INT)
    loaded.einsort_workspace_bytes.restype = _INT64
    loaded.einsort_check_window.argtypes = (_INT, _INT, _INT)
    loaded.einsort_matmul_leader.argtypes = (
        *[_POINTER] * 6, *[_INT64] * 3, *[_INT] * 4, _POINTER, _POINTER,
    )  # fmt: skip
    loaded.einsort_decode_leader.argtypes = (
        *[_POINTER] * 5, *[_INT64] * 2, *[_INT] * 4, _POINTER,
    )  # fmt: skip
    loaded.einsort_last_error.restype = ctypes.c_char_p
    return loaded


def build(folder: Path, cubins: Mapping[int, bytes]) -> Path:
    """The launcher as a shared library in `folder`; it is compiled if it is not there.

    Raises:
        MissingDependency: there is no C++ compiler, or it fails.
    """
    found = compiler(platform.machine())
    version = subprocess.run([found, "--version"], capture_output=True).stdout
    sources = [LAUNCHER.read_bytes(), LAUNCHER.with_suffix(".h").read_bytes(), _blob(cubins)]
    settings = repr((found, FLAGS, _ASSEMBLY)).encode()
    target = folder / f"cuda-{_fingerprint(*sources, settings, version)}.so"
    if not target.is_file():
        link(target, found, [LAUNCHER], cubins)
    return target


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
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        work = Path(name)
        write_cubins(work / "cubins.S", cubins)
        made = work / target.name
        command = [compiler, *FLAGS, f"-I{FOLDER}", *flags, *map(str, sources)]
        result = subprocess.run(
            [*command, f"-Wa,-I{work}", str(work / "cubins.S"), "-o", str(made), "-ldl"],
            capture_output=True, text=True,
        )  # fmt: skip
        if result.returncode:
            names = ", ".join(source.name for source in sources)
            raise MissingDependency(f"{compiler} cannot compile {names}: {result.stderr[-800:]}")
        os.replace(made, target)  # whole, whoever else compiles at the same time


def write_cubins(assembly: Path, cubins: Mapping[int, bytes]) -> None:
    """Source that the launcher is linked with, and beside it what it includes.

    The assembler finds it by `-Wa,-I` and the folder, or in the folder itself.
    """
    binary = assembly.with_suffix(".bin")
    binary.write_bytes(_blob(cubins))
    assembly.write_text(_ASSEMBLY.format(binary.name))


def compiler(machine: str) -> str:
    """A C++ compiler for `machine`, x86_64 or aarch64: $CXX or the system's, or a cross compiler.

    Raises:
        MissingDependency: there is none.
    """
    named = os.environ.get("CXX")
    if machine != platform.machine():
        names: Sequence[str] = (f"{machine}-linux-gnu-g++",)
    else:
        names = (named,) if named else COMPILERS
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise MissingDependency(
            f"a C++ compiler for {machine} is needed ({', '.join(names)}), and none is here. On "
            f"Debian or Ubuntu: apt-get install g++-{machine.replace('_', '-')}-linux-gnu."
        )
    return found


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


def _fingerprint(*parts: bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        made = Path(name) / target.name
        made.write_bytes(data)
        os.replace(made, target)  # whole, whoever else compiles at the same time
