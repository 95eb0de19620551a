"""`einsort-vla doctor`: what this machine has for compressing, running and judging policies."""

import ctypes.util
import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from json import dumps
from typing import Literal

import psutil
from rich.console import Console
from rich.table import Table

from einsort_vla.cli.run import INCOMPLETE
from einsort_vla.compiling import compiler_for
from einsort_vla.errors import MissingDependency

Verdict = Literal["ok", "missing", "wrong"]
MUJOCO = "3.3.2"  # later ones render other pictures and change contacts in libero_spatial
LEROBOT = "0.6.1"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; `fix` says what to do unless it is ok."""

    what: str
    found: str
    verdict: Verdict
    fix: str = ""


@dataclass(frozen=True)
class Doctor:
    """Check what is installed, and say how to fix what is not right. Exit code 1 if something is
    wrong. Something that is missing is only needed for what its fix names.
    """

    json: bool = False
    """Print JSON instead of a table."""

    def run(self, console: Console) -> int:
        with Console(stderr=True).status("Looking; the simulator takes a few seconds"):
            checks = [check for look in _LOOKS for check in look()]
        if self.json:
            print(dumps([asdict(check) for check in checks], indent=2))
        else:
            table = Table("what", "found", "", "fix")
            for c in checks:
                table.add_row(c.what, c.found, c.verdict, c.fix)
            console.print(table)
        return INCOMPLETE if any(c.verdict == "wrong" for c in checks) else 0


def _python() -> Iterator[Check]:
    is_right = sys.version_info[:2] == (3, 12)
    yield Check(
        "Python", platform.python_version(), "ok" if is_right else "wrong",
        "" if is_right else "lerobot and its pins need Python 3.12",
    )  # fmt: skip


def _packages() -> Iterator[Check]:
    yield _package("torch", "", "uv sync")
    yield _package("lerobot", LEROBOT, "pip install 'einsort-vla[lerobot]': runs LeRobot policies")
    yield _package("lerobot_policy_einsort", "", "pip install lerobot_policy_einsort: LeRobot then "
                   "loads compressed policies")  # fmt: skip
    yield _package("mujoco", MUJOCO, "pip install lerobot_env_einsort_libero: runs LIBERO")
    yield _package("tensorrt", "", "only on the machine that builds engines: pip install tensorrt")


def _package(name: str, version: str, fix: str) -> Check:
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "not installed", "missing", fix)
    if version and found != version:
        return Check(name, found, "wrong", f"pip install {name}=={version}")
    return Check(name, found, "ok")


def _compiler() -> Iterator[Check]:
    try:
        yield Check("C++ compiler", compiler_for(platform.machine()), "ok")
    except MissingDependency as error:
        yield Check("C++ compiler", "none: coding takes far longer", "missing", str(error))


def _graphics() -> Iterator[Check]:
    backend = os.environ.get("MUJOCO_GL", "not set")
    has_osmesa = ctypes.util.find_library("OSMesa") is not None
    fix = "as root: apt-get install libosmesa6 (or MUJOCO_GL=egl with a GPU)"
    yield Check(
        "GL for LIBERO", f"OSMesa {'found' if has_osmesa else 'not found'}, MUJOCO_GL {backend}",
        "ok" if has_osmesa or backend == "egl" else "missing", "" if has_osmesa else fix,
    )  # fmt: skip


def _memory() -> Iterator[Check]:
    free = psutil.virtual_memory().available / 1e9
    fix = "LIBERO with its policy takes 2.8 GB for each worker: use --workers 1"
    yield Check(
        "free memory", f"{free:.1f} GB", "ok" if free > 6 else "missing", "" if free > 6 else fix
    )


def _gpu() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        capability = ".".join(map(str, torch.cuda.get_device_capability()))
        yield Check("GPU", f"{torch.cuda.get_device_name()} (compute {capability})", "ok")
    else:
        yield Check("GPU", "none that torch can use", "missing", "everything runs on the CPU")


def _plug_ins() -> Iterator[Check]:
    """What installed plug-ins look at; they know what this package does not."""
    for entry in metadata.entry_points(group="einsort_vla.doctor"):
        yield from entry.load()()


_LOOKS: tuple[Callable[[], Iterator[Check]], ...] = (
    _python, _packages, _compiler, _graphics, _memory, _gpu, _plug_ins,
)  # fmt: skip
