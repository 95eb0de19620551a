"""Compiles native code once each, into the user's cache.

What lies there is loaded as code. So it is a folder that only its user can write to, and each file
has the SHA-256 of its content in its name, which is compared each time.
"""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from einsort_vla.atomic import atomic_file
from einsort_vla.errors import MissingDependency
from einsort_vla.private import cache_folder, check_own_file, private_folder
from einsort_vla.signature import sha256

COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-std=c++17", "-shared", "-fPIC", "-Wall")
# Threads of the pool that torch's own operators use, on Linux. Others that are started at each call
# cost more than what they compute.
OPENMP = "-fopenmp"
NATIVE = {"x86_64": "-march=native", "AMD64": "-march=native", "aarch64": "-mcpu=native"}
# For debugging: what the code is built for instead of this processor, such as x86-64-v3.
MARCH = "EINSORT_MARCH"


@contextlib.contextmanager
def kept_in_cache(what: str) -> Iterator[None]:
    """Around writing `what` to the cache and loading it from there.

    Raises:
        MissingDependency: in place of OSError: the folder cannot be written to, the disk is full,
            others can write there, or nothing there may be run.
    """
    where = "the cache"
    try:
        where = str(cache_folder())
        yield
    except OSError as error:
        raise MissingDependency(
            f"{what} cannot be kept in {where}: {error}. Mend it, or set XDG_CACHE_HOME to a "
            "folder that only you can write to, with room, where files may be run."
        ) from error


def made_once(target: Path, make: Callable[[Path], object]) -> Path:
    """What `make` wrote under the name `target`; it is called if that is not there, or not whole.

    Returns:
        The file, with its fingerprint in its name: `NAME.SHA256.SUFFIX`.

    Raises:
        OSError: the folder is not this user's alone, or cannot be written to.
    """
    folder = private_folder(target.parent)
    for found in folder.glob(f"{target.stem}.*{target.suffix}"):
        if _is_whole(found):
            return found
    with tempfile.TemporaryDirectory(dir=folder) as work:
        made = Path(work) / target.name
        make(made)
        made.chmod(0o700)
        whole = folder / f"{target.stem}.{sha256(made)}{target.suffix}"
        with atomic_file(whole) as partial:
            made.rename(partial)
    return whole


def _is_whole(path: Path) -> bool:
    """Whether a file is this user's, and what was made under its name; else it is removed."""
    with contextlib.suppress(OSError):
        check_own_file(path)
        if sha256(path) == path.name.split(".")[-2]:
            return True
    path.unlink(missing_ok=True)  # another process may have done so
    return False


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


def build_native(
    name: str, sources: Sequence[Path], folder: Path, more: Sequence[str] = ()
) -> Path:
    """A library for this processor in `folder`; it is compiled if it is not there.

    Args:
        name: what it is called in messages.
        sources: C++ files, and the headers that they include.
        folder: of this user alone.
        more: flags of the compiler.

    Raises:
        MissingDependency: there is no C++ compiler, or it fails.
    """
    compiler, march = compiler_for(platform.machine()), os.environ.get(MARCH)
    processor = f"-march={march}" if march else NATIVE.get(platform.machine())
    flags = [*FLAGS, *more, *filter(None, [processor])]
    compiled = [source for source in sources if source.suffix == ".cpp"]

    def compile_(made: Path) -> None:
        command = [compiler, *flags, *compiled, "-o", made]
        try:
            compile_library([*command, OPENMP], f"the {name} code")
        except MissingDependency:  # Apple's compiler has no OpenMP: for one thread
            compile_library([*command, "-Wno-unknown-pragmas"], f"the {name} code")

    contents = [source.read_bytes() for source in sources]
    parts = (*contents, version_of(compiler), flags, OPENMP, _processor())
    return made_once(folder / f"{name}-{fingerprint(*parts)}.so", compile_)


def _processor() -> list[str]:
    """What `native` means here."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.is_file() else []
    names = ("flags", "features", "model name")
    return [line for line in lines if line.lower().startswith(names)][:2]
