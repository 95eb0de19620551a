"""Builds the TensorRT plugin from TensorRT's headers alone, for this machine or another."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from einsort_vla.compiling import compiler_for
from einsort_vla.errors import MissingDependency
from einsort_vla.export.targets import Machine
from einsort_vla.kernels.cuda.build import LAUNCHER, POLYNOMIALS, link, write_cubins

FOLDER = Path(__file__).parent
LIBRARY = "libeinsort_plugin.so"


def build_plugin(folder: Path, target: Machine, cubins: Mapping[int, bytes]) -> Path:
    """`libeinsort_plugin.so` in `folder`, which TensorRT loads as a plugin library.

    It needs libc at run time, and the CUDA driver once a kernel is launched.

    Args:
        folder: made if it is not there; a library of that name is replaced.
        target: the machine it is to run on; for another than this one a cross compiler is needed.
        cubins: the kernels by SM, see `kernels.cuda.build.cubins`.

    Raises:
        MissingDependency: TensorRT's headers or a compiler are missing, or it fails.
    """
    made = folder / LIBRARY
    flags = [
        "-fno-exceptions",
        "-DEINSORT_EXPORT=",
        f"-isystem{_tensorrt_headers()}",
        f"-isystem{FOLDER / 'include'}",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    link(made, compiler_for(target), [FOLDER / "plugin.cpp", LAUNCHER], cubins, flags)
    return made


def write_source(folder: Path, library: str, cubins: Mapping[int, bytes]) -> None:
    """What the plugin is made of, and a script that compiles it on a device with a g++.

    Args:
        folder: to make.
        library: name of the library, which the script puts beside the folder.
        cubins: as in `build_plugin`.
    """
    folder.mkdir(parents=True)
    kernels = LAUNCHER.parent
    sources = [FOLDER / "plugin.cpp", *(FOLDER / "include").glob("*.h"), LAUNCHER, POLYNOMIALS]
    for source in sorted([*sources, *kernels.glob("*.cu*"), *kernels.glob("*.h")]):
        (folder / source.name).write_bytes(source.read_bytes())
    write_cubins(folder / "cubins.S", cubins)
    (folder / "build.sh").write_text(_SCRIPT.format(library=library), encoding="utf-8")


# TensorRT's own headers lie in the compiler's path on a Jetson. The kernels are compiled already:
# cubins.bin, from curve.cu.
_SCRIPT = """#!/bin/sh
# Compiles the plugin against the TensorRT that is installed here, and lists its fingerprint.
set -e
cd "$(dirname "$0")"
g++ -O2 -std=c++17 -shared -fPIC -fno-exceptions -fvisibility=hidden -DEINSORT_EXPORT= -I. \\
  plugin.cpp launch.cpp cubins.S -o ../{library} -ldl
cd ../..
sum=$(sha256sum plugin/{library})
sed -i "s|^.*  plugin/{library}$|$sum|" SHA256SUMS
"""


def _tensorrt_headers() -> Path:
    """Of TensorRT 10.14; a plugin built with them runs on 10.x and 11.x."""
    package = importlib.util.find_spec("kernel_lens")
    if package is None or package.origin is None:
        raise MissingDependency(
            "the plugin needs TensorRT's headers, which the package kernel-lens has: "
            "pip install kernel-lens==2.0.1"
        )
    return Path(package.origin).parent / "include" / "tensorrt"
