"""Files and folders that are whole or not there, whatever stops the writer.

A writer that is killed leaves what it had under a hidden name, `.NAME.XXXXXXXX.partial`, beside it.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from einsort_vla.errors import CheckpointError, EinSortError

PARTIAL = ".partial"  # the end of a name that is not finished


def check_new(path: Path) -> None:
    """Refuse a file or folder that is there already.

    Raises:
        CheckpointError: it is.
    """
    if path.exists():
        raise CheckpointError(f"{path} exists already; nothing was written over.")


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A name to write to, beside `path`; it takes that place on leaving, in that of an older file.

    After an exception nothing is left of it, and an older file is as it was.
    """
    partial = _beside(path)
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all; line ends stay as they are."""
    with atomic_file(path) as partial:
        partial.write_bytes(text.encode())


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` to fill; it takes that name on leaving.

    After an exception nothing is left of it.

    Raises:
        CheckpointError: `path` exists already, before or after.
    """
    check_new(path)
    partial = _beside(path)
    partial.mkdir(parents=True)
    try:
        yield partial
        _take_place(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def resumable_folder(path: Path) -> Iterator[Path]:
    """As `atomic_folder`, but a stopped writer leaves PATH.partial, and the next one goes on there.

    After an error of ours nothing is left of it: the same request would meet it again.

    Raises:
        CheckpointError: `path` exists already, before or after.
    """
    check_new(path)
    partial = path.with_name(path.name + PARTIAL)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        _take_place(partial, path)
    except EinSortError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _beside(path: Path) -> Path:
    """No other writer has the same name."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def _take_place(folder: Path, path: Path) -> None:
    for inside, _, names in os.walk(folder):
        for name in names:
            _sync(Path(inside, name))
        _sync(Path(inside))
    check_new(path)
    os.rename(folder, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some disks keep the names in folders by themselves, and refuse
            raise
    finally:
        os.close(descriptor)
