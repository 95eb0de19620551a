"""What a kind of files must tell."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.change import Target


@dataclass(frozen=True)
class Kind:
    """One kind of files.

    Attributes:
        name: on the command line.
        make: writes a sample into a folder that is there.
        open: reads it as users do, given the folder and one to write into, and returns what it
            found; equal samples give equal results.
        targets: the files that are changed.
        share: how many cases it gets beside the others.
        sign: computes its fingerprints anew, if it has any.
        hosts: packages that read most of these files themselves: their errors are their own.
    """

    name: str
    make: Callable[[Path], None]
    open: Callable[[Path, Path], Any]
    targets: tuple[Target, ...]
    share: float = 1.0
    sign: Callable[[Path], None] | None = None
    hosts: tuple[str, ...] = ()
