"""Where compiled kernels are kept."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from einsort_vla.errors import MissingDependency


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
