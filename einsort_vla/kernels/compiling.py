"""Compiles kernels once each, into the user's cache."""

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from einsort_vla.atomic import atomic_file
from einsort_vla.errors import MissingDependency

COMPILERS = ("c++", "g++", "clang++")


def cache() -> Path:
    """The folder of this package in the user's cache."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "einsort-vla"


@contextmanager
def kept_in_cache(what: str) -> Iterator[None]:
    """Around writing `what` to the cache and loading it from there.

    Raises:
        MissingDependency: in place of OSError: the folder cannot be written to, the disk is full,
            or nothing there may be run.
    """
    try:
        yield
    except OSError as error:
        raise MissingDependency(
            f"{what} cannot be kept in {cache()}: {error}. Make room there, or set XDG_CACHE_HOME "
            "to a folder where files may be written and run."
        ) from error


def made_once(target: Path, make: Callable[[Path], object]) -> Path:
    """The file `target`; if it is not there, `make` writes it, under a name for the time being.

    It is whole, whoever else makes it at the same time.
    """
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(target) as partial:
            make(partial)
    return target


def compiler_for(machine: str) -> str:
    """A C++ compiler for `machine`, x86_64 or aarch64: $CXX or the system's, or a cross compiler.

    Raises:
        MissingDependency: there is none.
    """
    names, what, package = COMPILERS, "compiler", "g++; or use --backend decoded"
    if machine != platform.machine():
        names, what = (f"{machine}-linux-gnu-g++",), f"compiler for {machine}"
        package = f"g++-{machine.replace('_', '-')}-linux-gnu"
    elif named := os.environ.get("CXX"):
        names = (named,)
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise MissingDependency(
            f"a C++ {what} is needed ({', '.join(names)}), and none is here. On Debian or Ubuntu: "
            f"apt-get install {package}."
        )
    return found


def compile_library(command: Sequence[str | Path], what: str) -> None:
    """Run a C++ compiler, whose sources are `what`.

    Raises:
        MissingDependency: it fails; the message has the end of what it says.
    """
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise MissingDependency(f"{command[0]} cannot compile {what}: {result.stderr[-800:]}")


def version_of(compiler: str) -> bytes:
    """What a compiler says of its version."""
    return subprocess.run([compiler, "--version"], capture_output=True).stdout


def fingerprint(*parts: object) -> str:
    """Of what a compiled file is made of, for its name."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
