"""The manifest of a compressed folder: SHA-256 of every file that its result depends on."""

import json
from pathlib import Path

from einsort_vla.checkpoint.read_files import file_sha256
from einsort_vla.errors import CheckpointError

MANIFEST = "einsort_manifest.json"
FREE = ("README.md", ".gitattributes")  # may be edited
HIDDEN = ".cache"  # of hub downloads


def write(folder: Path) -> None:
    """Write the manifest of all files that are there."""
    content = {"files": {name: file_sha256(folder / name) for name in _names(folder)}}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check(folder: Path) -> dict[str, str]:
    """Check every file against the manifest; files that it does not name are let be.

    Returns:
        Each file's fingerprint by its name.

    Raises:
        CheckpointError: there is no manifest, it is damaged, or a file is missing or was changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} lacks {MANIFEST}; copy the folder again, whole.")
    try:
        files = json.loads(path.read_text(encoding="utf-8"))["files"]
        entries = sorted((str(name), str(digest)) for name, digest in files.items())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy the folder again.") from error
    for name, digest in entries:
        check_inside(path, name)
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} lacks {name}; copy the folder again, whole.")
        if file_sha256(folder / name) != digest:
            raise CheckpointError(
                f"{folder / name} is not the file that was written: it is damaged, truncated or "
                f"was edited. Copy it again; after an edit on purpose, take it out of {MANIFEST}."
            )
    return dict(entries)


def check_inside(source: Path, name: str) -> None:
    """Refuse a name that leads out of the folder.

    Raises:
        CheckpointError: it does; `source` is the file that has it.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(f"{source} names {name}, which is not in the folder.")


def _names(folder: Path) -> list[str]:
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(n for n in names if n not in (*FREE, MANIFEST) and not n.startswith(HIDDEN))
