"""Folders that only their user can write to: what lies there is run, or is nobody else's business.

Whoever may write to a folder, or replace one above it, chooses what is loaded from it.
"""

import contextlib
import os
import stat
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """The folder of this package in the user's cache: what can be made again."""
    return _home("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """The folder of this package for what is remembered on this machine."""
    return _home("XDG_STATE_HOME", ".local/state")


def _home(variable: str, default: str) -> Path:
    root = os.environ.get(variable, "")
    if os.path.isabs(root):
        return Path(root) / "einsort-vla"
    try:
        return Path.home() / default / "einsort-vla"
    except RuntimeError as error:  # no $HOME, and the user is unknown to the system
        raise OSError(f"there is no home folder; set {variable} to a folder of yours") from error


def private_folder(path: Path) -> Path:
    """A folder for this user alone (mode 0700), made if it is not there.

    Raises:
        OSError: it cannot be made; it is a link or belongs to someone else; or others may write to
            it, or to a folder above it that is not sticky. The message has the fix.
    """
    _make_parents(path.parent)
    parent = path.parent.resolve()
    for above in (parent, *parent.parents):
        mode = above.stat().st_mode
        if mode & _OTHERS_WRITE and not mode & stat.S_ISVTX:
            raise PermissionError(
                f"other users can replace what is in {above} (chmod go-w {above})"
            )
    folder = parent / path.name
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise PermissionError(f"{folder} is a link or file, not a folder of yours; remove it")
    _check_own(folder, found)
    with contextlib.suppress(OSError):  # on a read-only disk
        folder.chmod(0o700)
    return folder


def check_own_file(path: Path) -> None:
    """Check that a file is plain, this user's, and writable by nobody else.

    Raises:
        OSError: it is not.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise PermissionError(f"{path} is no plain file; remove it")
    _check_own(path, found)


def _check_own(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to user {found.st_uid}, not to you; remove it")
    if found.st_mode & _OTHERS_WRITE:
        raise PermissionError(f"other users can write to {path}, and may have; remove it")


def _make_parents(folder: Path) -> None:
    """As `mkdir -p`, but for this user alone, whatever the umask is."""
    if not folder.is_dir():
        _make_parents(folder.parent)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
