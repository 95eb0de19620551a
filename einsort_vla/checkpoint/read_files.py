"""Files of a source: their kind, their fingerprints, and whether they are still what was read."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from einsort_vla.errors import CheckpointError
from einsort_vla.reading import check_file
from einsort_vla.signature import sha256


@dataclass(frozen=True)
class Identity:
    """What tells, without reading it, that a file is not the one that was seen."""

    n_bytes: int
    modified: int  # nanoseconds
    changed: int  # nanoseconds; also when only the name, the owner or the mode was
    inode: int

    @classmethod
    def of(cls, path: Path) -> "Identity":
        """Of the file that a path leads to."""
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


class ReadFiles:
    """Files that are read over hours, and must not change meanwhile.

    A file whose identity is what it was at first counts as unchanged, unread: reading ten gigabytes
    twice is too slow. Of one whose identity differs, the SHA-256 decides, if it was taken before; a
    file whose SHA-256 nobody asked for counts as changed.
    """

    def __init__(self, *files: Path) -> None:
        self._identities = {file: Identity.of(file) for file in files}
        self._digests: dict[Path, str] = {}

    def sha256(self, file: Path) -> str:
        """Fingerprint of one of them, taken once.

        Raises:
            CheckpointError: it changed before or while it was read.
        """
        if file not in self._digests:
            digest = file_sha256(file)
            self.check()
            self._digests[file] = digest
        return self._digests[file]

    def check(self) -> None:
        """Refuse to go on with other files than were read.

        Raises:
            CheckpointError: a file is missing or was changed.
        """
        for file, before in self._identities.items():
            now = Identity.of(file) if file.is_file() else None
            if now == before:
                continue
            if now is None or file_sha256(file) != self._digests.get(file):
                raise CheckpointError(
                    f"{file} was changed or taken away while it was read; nothing is made of a "
                    "mixture. Run the command again once nothing writes there."
                )
            self._identities[file] = now


def file_sha256(path: Path) -> str:
    """As `sha256`, with errors for people.

    Raises:
        CheckpointError: it is no file, or cannot be read.
    """
    check_file(path)
    try:
        return sha256(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def what_is_at(path: Path) -> str:
    """What lies where a file should be: the end of a sentence that begins with the path."""
    if path.is_symlink() and not path.exists():
        return f"is a dangling link (to {os.readlink(path)}); fetch the folder again, whole."
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        return "is a folder, not a file; fetch the folder around it again."
    kinds = {stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return f"is a {kinds.get(stat.S_IFMT(mode), 'device')}, not a file; take it away."
