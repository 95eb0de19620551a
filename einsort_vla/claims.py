"""One writer a folder, which is whole or not there, whatever stops the writer.

A folder NAME is made inside NAME.partial, which holds: a mark, that tells it from other people's
folders; the folder that will be NAME; and, of work that can be gone on with, a journal of what is
done. A lock on NAME.partial keeps a second writer out; the system drops it with its process. A
writer that is killed leaves NAME.partial, and the next one for that name uses it or clears it.
"""

import errno
import json
import logging
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from einsort_vla.atomic import PARTIAL, check_apart, check_new, check_parent, lock, sync, writing
from einsort_vla.errors import CheckpointError, EinSortError, shown
from einsort_vla.reading import is_inside

MARK = ".einsort-vla"  # in a NAME.partial that we made: for which request, and its files' names
JOURNAL = "journal"  # in it: what is done, so that there is work to keep
_NEW_MARK = MARK + PARTIAL
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claim:
    """A folder's name that this process alone writes to.

    Attributes:
        path: the name.
        partial: the folder in which it is made.
    """

    path: Path
    partial: Path

    @property
    def folder(self) -> Path:
        """The folder that will have the name."""
        return self.partial / self.path.name

    @property
    def journal(self) -> Path:
        """Where a writer notes what is done; it is never shipped."""
        return self.partial / JOURNAL


@contextmanager
def claim(path: Path | Claim, *sources: Path) -> Iterator[Claim]:
    """Keep other writers from a folder's name, so long as this is open; nothing is written yet.

    Args:
        path: the name; a claim that is held already stays so.
        sources: folders that are read for it.

    Raises:
        CheckpointError: `path` exists already, cannot be written, or its partial folder is not
            ours or holds files that are not ours.
        UsageError: another process is writing it, or it lies in a source.
    """
    check_apart(path.path if isinstance(path, Claim) else path, *sources)
    if isinstance(path, Claim):
        yield path  # whoever made it lets go of it
        return
    made = Claim(path, path.with_name(path.name + PARTIAL))
    try:
        descriptor = _hold(made)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        yield made
    finally:
        _tidy(made)
        os.close(descriptor)


@contextmanager
def atomic_folder(path: Path | Claim, *sources: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the name `path` on leaving.

    After an exception nothing is left of it. What a killed writer left is cleared.

    Raises:
        CheckpointError, UsageError: as `claim`; `path` may also exist afterwards, or the disk be
            full.
    """
    with claim(path, *sources) as own:
        _begin_anew(own)
        try:
            with writing(own.path):
                own.folder.mkdir()
                yield own.folder
                _take_place(own)
        finally:
            _clear(own)


class Resumable:
    """A folder that is being filled, and may have been filled in part by an earlier writer.

    Attributes:
        folder: it will have the name.
        journal: a file to note in what is done. Once something is in it, errors leave the work.
        is_kept: whether they do.
    """

    def __init__(self, own: Claim, request: str, names: Collection[str]) -> None:
        self.folder, self.journal, self.is_kept = own.folder, own.journal, True
        self._own, self._mark = own, _Mark(request, tuple(sorted(names)))

    def begin(self) -> None:
        """Go on with the work of the same request; clear that of another."""
        earlier, wanted = _read_mark(self._own), self._mark
        if earlier.request != wanted.request:
            _begin_anew(self._own)
        else:
            _check_names(self.folder, {*earlier.names, *wanted.names})
            for name in set(earlier.names) - set(wanted.names):
                (self.folder / name).unlink(missing_ok=True)
        _write_mark(self._own, wanted)
        self.folder.mkdir(exist_ok=True)

    def add(self, names: Collection[str]) -> None:
        """Name further files, before they are written."""
        self._mark = _Mark(self._mark.request, tuple(sorted({*self._mark.names, *names})))
        _write_mark(self._own, self._mark)

    def give_up(self) -> None:
        """Keep nothing after the next error: the same request would meet it again."""
        self.is_kept = False

    def finish(self) -> None:
        """Give the folder its name."""
        _check_names(self.folder, self._mark.names)
        _take_place(self._own)


@contextmanager
def resumable_folder(
    path: Path | Claim, request: str, names: Collection[str]
) -> Iterator[Resumable]:
    """As `atomic_folder`, but what a stopped writer did is kept for the same request to go on with.

    After an error, too, once something is noted in the journal; the error says where it is.

    Args:
        path: of the folder.
        request: tells what will be in it; another request begins anew.
        names: of all files that will be in it, relative to it. Others never get there.

    Raises:
        CheckpointError, UsageError: as `claim`; or there are files in it that were not named.
    """
    with claim(path) as own:
        made = Resumable(own, request, names)
        made.begin()
        try:
            yield made
            made.finish()
        except (EinSortError, OSError) as error:
            where = f" {kept(own.path)}" if made.is_kept else ""
            if isinstance(error, OSError):
                raise CheckpointError(
                    f"{own.path} cannot be made: {error}.{where}".rstrip()
                ) from error
            raise type(error)(f"{error}{where}".rstrip()) from error
        finally:
            # The folder has its name, or there is nothing to go on with.
            if not (own.folder.exists() and made.is_kept and _has_work(own)):
                _clear(own)


def kept(path: Path) -> str:
    """A sentence on the work that a stopped writer left for a folder; empty if there is none."""
    own = Claim(path, path.with_name(path.name + PARTIAL))
    if not _has_work(own):
        return ""
    return f"What is done so far is kept in {own.partial}; the same command goes on there."


@dataclass(frozen=True)
class _Mark:
    request: str = ""  # of none; it is never gone on with
    names: tuple[str, ...] = ()


def _hold(own: Claim) -> int:
    """The descriptor of the partial folder, made if it is not there, once it is ours alone."""
    check_parent(own.path)
    while True:
        check_new(own.path)
        with suppress(FileExistsError):
            own.partial.mkdir()
        try:
            descriptor = os.open(own.partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:  # the writer before us has just ended
            continue
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise _not_ours(own) from error
            raise
        if _is_held(own, descriptor):
            return descriptor


def _is_held(own: Claim, descriptor: int) -> bool:
    """Whether the open folder is ours now; if not, it is closed."""
    refusal = (
        f"another process is writing {own.path}. Wait for it, stop it, or choose another "
        "destination."
    )
    try:
        lock(descriptor, own.partial, refusal)
        if not _is_at(own.partial, descriptor):
            os.close(descriptor)
            return False
        try:
            check_new(own.path)
            _check_ours(own)
        except BaseException:
            _tidy(own)
            raise
    except BaseException:
        os.close(descriptor)
        raise
    return True


def _is_at(folder: Path, descriptor: int) -> bool:
    """Whether an open folder still has that name: a writer that ended has taken it away."""
    try:
        return os.path.samestat(folder.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _not_ours(own: Claim) -> CheckpointError:
    return CheckpointError(
        f"{own.partial} is where {own.path} would be made, and einsort-vla did not make it. "
        "Rename it, or choose another destination."
    )


def _check_ours(own: Claim) -> None:
    found = set(os.listdir(own.partial))
    if found and not found & {MARK, _NEW_MARK}:
        raise _not_ours(own)
    foreign = found - {MARK, _NEW_MARK, JOURNAL, own.path.name}
    foreign |= {name for name in _files(own.partial) if (own.partial / name).is_symlink()}
    if foreign:  # we make no links, and what is written to one lands where it leads
        raise _foreign(own.partial, sorted(foreign))
    if MARK not in found:
        _write_mark(own, _Mark())


def _check_names(folder: Path, names: Collection[str]) -> None:
    if foreign := sorted(_files(folder) - set(names)):
        raise _foreign(folder, foreign)


def _foreign(folder: Path, names: list[str]) -> CheckpointError:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return CheckpointError(
        f"{folder} holds what einsort-vla did not write: {', '.join(map(shown, names[:5]))}{more}. "
        "Move it away, and run the same command again."
    )


def _files(folder: Path) -> set[str]:
    """The names of all that is not a folder, however deep."""
    return {
        (Path(inside) / name).relative_to(folder).as_posix()
        for inside, folders, files in os.walk(folder)
        for name in (*files, *(name for name in folders if Path(inside, name).is_symlink()))
    }


def _begin_anew(own: Claim) -> None:
    """Clear what another request has left."""
    earlier = _read_mark(own)
    if earlier.names:
        _check_names(own.folder, earlier.names)
    if _has_work(own):
        log.warning("%s held the work of another request; it is begun anew.", own.partial)
    _clear(own)
    _write_mark(own, _Mark())


def _has_work(own: Claim) -> bool:
    try:
        return own.journal.stat().st_size > 0
    except OSError:
        return False


def _clear(own: Claim) -> None:
    """Delete what was made; the mark stays."""
    own.journal.unlink(missing_ok=True)
    shutil.rmtree(own.folder, ignore_errors=True)


def _tidy(own: Claim) -> None:
    """Take the partial folder away, if nothing is left in it."""
    with suppress(OSError):
        if set(os.listdir(own.partial)) <= {MARK, _NEW_MARK}:
            for name in (_NEW_MARK, MARK):
                (own.partial / name).unlink(missing_ok=True)
            own.partial.rmdir()


def _read_mark(own: Claim) -> _Mark:
    try:
        content = json.loads((own.partial / MARK).read_text(encoding="utf-8"))
        mark = _Mark(str(content["request"]), tuple(map(str, content["names"])))
        return mark if all(map(is_inside, mark.names)) else _Mark()
    except (OSError, ValueError, KeyError, TypeError):
        return _Mark()


def _write_mark(own: Claim, mark: _Mark) -> None:
    new = own.partial / _NEW_MARK
    try:
        new.write_text(json.dumps(asdict(mark)), encoding="utf-8")
        os.replace(new, own.partial / MARK)
    except OSError as error:
        raise CheckpointError(f"{own.path} cannot be written: {error.strerror}.") from error


def _take_place(own: Claim) -> None:
    for inside, _, names in os.walk(own.folder):
        for name in names:
            sync(Path(inside, name))
        sync(Path(inside))
    check_new(own.path)
    os.rename(own.folder, own.path)
    sync(own.path.parent)
