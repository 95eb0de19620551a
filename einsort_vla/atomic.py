"""Files that are whole or not there, whatever stops their writer; and locks on folders."""

import errno
import fcntl
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from einsort_vla.errors import CheckpointError, UsageError

PARTIAL = ".partial"  # the end of a name that is not finished
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (*_NO_ROOM, errno.EROFS, errno.EFBIG)  # of no file that is only read
_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EBADF, errno.EINVAL)
log = logging.getLogger(__name__)


def check_new(path: Path) -> None:
    """Refuse a file or folder that is there already.

    Raises:
        CheckpointError: it is, or it is a link that leads nowhere.
    """
    if path.exists():
        raise CheckpointError(f"{path} exists already; nothing was written over.")
    if path.is_symlink():
        raise CheckpointError(
            f"{path} is a dangling link (to {os.readlink(path)}); delete it, or name another."
        )


def check_apart(destination: Path, *sources: Path) -> None:
    """Refuse to write into a folder that is read, wherever links lead.

    Raises:
        UsageError: the destination lies in a source, or would hold it.
    """
    new = Path(os.path.realpath(destination))
    for source in sources:
        old = Path(os.path.realpath(source))
        if new == old:
            raise UsageError(f"{destination} is the source itself; write elsewhere.")
        if new.is_relative_to(old):
            raise UsageError(f"{destination} lies in {source}, which is read; write elsewhere.")
        if old.is_relative_to(new):
            raise UsageError(f"{source}, which is read, lies in {destination}; write elsewhere.")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around all that writes `path`: the message names it, not the partial name beside it.

    Raises:
        CheckpointError: in place of what the system or safetensors says: no room, a read-only
            disk, a folder that takes no file.
    """
    try:
        yield
    except Exception as error:
        if (number := _number(error, path)) is None:
            raise
        what = f"{path} cannot be written: {os.strerror(number)}."
        if number in _NO_ROOM:
            what = f"there is no room for {path}: make some, or choose another disk."
        raise CheckpointError(what) from error


def _number(error: Exception, path: Path) -> int | None:
    """The system's number of an error that is about writing `path`."""
    if not isinstance(error, OSError):  # safetensors has a class of its own, which is not loaded
        found = re.search(r"\(os error (\d+)\)", str(error))
        return int(found[1]) if found and type(error).__name__ == "SafetensorError" else None
    is_ours = error.filename is not None and _is_for(Path(str(error.filename)), path)
    return error.errno if is_ours or error.errno in _NOT_WRITABLE else None


def _is_for(named: Path, path: Path) -> bool:
    """Whether a name is that of `path`, of a folder around it, in it, or of its unfinished form."""
    unfinished = (f"{path}{PARTIAL}", str(path.with_name(f".{path.name}.")))
    return (
        path.is_relative_to(named)
        or named.is_relative_to(path)
        or str(named).startswith(unfinished)
    )


@contextmanager
def alone_in(folder: Path, refusal: str) -> Iterator[None]:
    """Keep other processes out of a folder; the system lets go of it however this one ends.

    On a file system without locks this only warns.

    Raises:
        UsageError: another process is at work in it; `refusal` is what it says.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        lock(descriptor, folder, refusal)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A name to write to, beside `path`; it takes that place on leaving, in that of an older file.

    After an exception nothing is left of it, and an older file is as it was.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield partial
        sync(partial)
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """As `atomic_file`, for a file that must not be there.

    Raises:
        CheckpointError: `path` exists already, before or after, its folder does not, or it cannot
            be written.
    """
    check_new(path)
    check_parent(path)
    with writing(path), atomic_file(path) as partial:
        yield partial
        check_new(path)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all; line ends stay as they are."""
    with atomic_file(path) as partial:
        partial.write_bytes(text.encode())


def check_parent(path: Path) -> None:
    """Refuse a name in a folder that is not there.

    Raises:
        CheckpointError: it is not, or it is no folder.
    """
    if not path.parent.is_dir():
        raise CheckpointError(f"{path.parent} is no folder; make it, or correct {path}.")


def lock(descriptor: int, folder: Path, refusal: str) -> None:
    """Lock an open folder until it is closed; on a file system without locks this only warns.

    Raises:
        UsageError: another process holds it.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(refusal) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        log.warning(
            "The file system of %s has no locks: make sure that nothing else writes there.", folder
        )


def sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some disks keep the names in folders by themselves, and refuse
            raise
    finally:
        os.close(descriptor)
