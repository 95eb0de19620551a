"""Puts the native library into a wheel for one machine: EINSORT_WHEEL_FOR=x86_64 or aarch64.

Without that variable the wheel is one for all machines, and each compiles the library itself.
"""

import os
import platform
import runpy
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("einsort_vla")
GLIBC = "2_17"  # what symbols it needs, but for a weak one of 2.18


class NativeLibrary(BuildHookInterface[Any]):
    """See above."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        machine = os.environ.get("EINSORT_WHEEL_FOR")
        if machine is None:
            return
        source = Path(self.root) / PACKAGE
        flags = runpy.run_path(str(source / "native_flags.py"))
        if machine not in flags["LEVELS"]:
            raise SystemExit(f"EINSORT_WHEEL_FOR={machine}: it is one of {list(flags['LEVELS'])}.")
        self.folder = tempfile.mkdtemp()
        library = Path(self.folder) / flags["SHIPPED"]
        compile_library(source / flags["FOLDER"], machine, flags, library)
        shipped = PACKAGE / flags["FOLDER"] / flags["SHIPPED"]
        build_data["force_include"][str(library)] = str(shipped)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_{GLIBC}_{machine}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "folder"):
            shutil.rmtree(self.folder)


def compile_library(source: Path, machine: str, flags: dict[str, Any], library: Path) -> None:
    """Kernels once for each level, the rest once for the oldest processor."""
    cross = "" if machine == platform.machine() else f"{machine}-linux-gnu-"
    levels = flags["LEVELS"][machine]
    several = ["-DEINSORT_SEVERAL"] if len(levels) > 1 else []
    common = [*flags["COMMON"], *flags["OWN"], *several]
    oldest = next(iter(levels.values()))
    kernels = flags["KERNELS"]
    jobs = {f"kernels-{name}": (kernels, [f"-DEINSORT_KERNELS=kernels_{name}", *own.split()])
            for name, own in levels.items()}  # fmt: skip
    jobs |= {name: (name, [oldest]) for name in flags["SOURCES"] if name != kernels}
    objects = []
    for name, (file, own) in jobs.items():
        objects.append(str(library.with_name(f"{name}.o")))
        command = [f"{cross}g++", *common, *own, "-c", str(source / file), "-o", objects[-1]]
        subprocess.run(command, check=True)
    # The C compiler links, so that nothing of the C++ library comes in; what lacks is an error.
    link = [f"{cross}gcc", "-shared", "-Wl,-z,defs", "-s", *objects, "-lm", "-o", str(library)]
    subprocess.run(link, check=True)
