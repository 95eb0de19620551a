"""Builds the driver that runs CUDA kernels on the CPU, and a program that uses the launcher."""

import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from einsort_vla.compiling import compiler_for, fingerprint, made_once
from einsort_vla.kernels.cuda import build
from einsort_vla.private import cache_folder

FOLDER = Path(__file__).parent
# What could be a fault of memory; more checks, and names of lines, take three times as long.
CHECKED = ["-O1", "-fsanitize=address,alignment,bounds", "-fno-sanitize-recover=all"]
EMULATED = ["-shared", "-fPIC", "-Wall", "-Wno-unknown-pragmas"]


@dataclass(frozen=True)
class Emulator:
    """What reads cases from standard input (run.cpp), and the variables that it needs."""

    program: Path
    environment: dict[str, str]


def emulator(folder):
    driver(folder, CHECKED)
    program, assembly = folder / "run", folder / "cubins.S"
    # Stand in for cubins; the driver knows the kernels by their names.
    build.write_cubins(assembly, {86: b"cubin 86", 87: b"cubin 87"})
    sources = [FOLDER / "run.cpp", build.LAUNCHER, assembly]
    headers = [f"-I{build.FOLDER}", f"-I{build.POLYNOMIALS.parent}", f"-Wa,-I{folder}"]
    compile_([*CHECKED, *headers, *sources, "-ldl"], program)
    return Emulator(program, {"LD_LIBRARY_PATH": str(folder), "ASAN_OPTIONS": "detect_leaks=0"})


def driver(folder, flags):
    """`libcuda.so.1` in `folder`; kept in the cache, since compiling takes most of a minute."""
    sources = [FOLDER / "driver.cpp", FOLDER / "emulation.h", build.KERNELS]
    sources += sorted(build.FOLDER.glob("*.cuh"))
    included = [f"-include{FOLDER / 'emulation.h'}", f"-I{build.FOLDER}"]
    key = fingerprint(*(path.read_bytes() for path in sources), flags, EMULATED)
    made = made_once(
        cache_folder() / f"emulated-{key}.so",
        lambda target: compile_([*flags, *EMULATED, *included, sources[0]], target),
    )
    shutil.copy(made, folder / "libcuda.so.1")


def compile_(arguments, target, compiler=None):
    command = [compiler or compiler_for(platform.machine()), "-std=c++17", *map(str, arguments)]
    result = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
