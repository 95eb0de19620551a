"""Files of a source: where they lie, their fingerprints, and whether they are what was read."""

import os
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


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path in a policy folder leads out of it, by a link.

    In the hub's cache files are links to blobs beside the snapshot, which count as its own.
    """
    root, target = (Path(os.path.realpath(each)) for each in (folder, path))
    snapshots = filter(_is_snapshot, (root, *root.parents))
    homes = [root, *(at.parent.parent / "blobs" for at in snapshots)]
    return not any(target.is_relative_to(home) for home in homes)


def _is_snapshot(folder: Path) -> bool:
    """Whether it is a revision in the hub's cache: models--NAME/snapshots/REVISION."""
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")
