"""The manifest of a compressed folder: SHA-256 of every file that its result depends on."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

import msgspec

from einsort_vla.checkpoint.read_files import file_sha256, leads_out
from einsort_vla.checkpoint.side_files import check_kind
from einsort_vla.errors import CheckpointError, shown
from einsort_vla.reading import AGAIN, is_inside, parse_json, read_text
from einsort_vla.signature import SIGNATURE, check_signature

MANIFEST = "einsort_manifest.json"
FREE = ("README.md", ".gitattributes")  # may be edited
SIGNED_BY = MANIFEST + SIGNATURE  # made later
HIDDEN = (".cache/", ".git/")  # of downloads
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    files: dict[str, Sha256]


def write(folder: Path) -> None:
    """Write the manifest of all files that are there.

    Raises:
        CheckpointError: a file has a name that no manifest may have, is a link out of the folder,
            or cannot be read.
    """
    (folder / MANIFEST).write_text(describe(folder), encoding="utf-8")


def describe(folder: Path) -> str:
    """The text of a manifest of all files that are there.

    Raises:
        CheckpointError: a file has a name that no manifest may have, is a link out of the folder,
            or cannot be read.
    """
    content = {"files": {name: file_sha256(folder / name) for name in _names(folder)}}
    _check_names(content["files"], str(folder))
    return json.dumps(content, indent=1) + "\n"


def exists(folder: Path) -> bool:
    """Whether a folder has a manifest."""
    return (folder / MANIFEST).is_file()


def parse(text: str, source: str) -> dict[str, str]:
    """Each file's fingerprint by its name, of a manifest's text; errors call it `source`.

    Raises:
        CheckpointError: it is damaged, or names what is not in its folder.
    """
    files = parse_json(text, _Manifest, source, AGAIN).files
    _check_names(files, source)
    return dict(sorted(files.items()))


def check(folder: Path) -> dict[str, str]:
    """Check every file against the manifest; files that it does not name are let be.

    Returns:
        Each file's fingerprint by its name.

    Raises:
        CheckpointError: there is no manifest, it is damaged, or a file is missing or was changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(
            f"{folder} has no {MANIFEST}: it is no folder that `compress` wrote, or was not copied "
            "whole."
        )
    files = parse(read_text(path), str(path))
    for name, digest in files.items():
        file = folder / name
        if not file.is_file():
            raise CheckpointError(f"{folder} lacks {name}; copy the folder again, whole.")
        if leads_out(file, folder):
            raise CheckpointError(f"{path} names {name}, and a link leads out of the folder there.")
        if file_sha256(file) != digest:
            raise CheckpointError(
                f"{file} is not the file that was written: it is damaged, truncated or "
                f"was edited. Copy it again; after an edit on purpose, take it out of {MANIFEST}."
            )
    return files


def check_signed(folder: Path, keys: Sequence[Path]) -> None:
    """Check that one of the keys has signed a folder, and that nothing was put into it since.

    Raises:
        CheckpointError, UsageError, MissingDependency: as `check_signature`; or a file is there
            that the manifest does not name, so that no signature covers it.
    """
    check_signature(folder / MANIFEST, keys)
    named = parse(read_text(folder / MANIFEST), str(folder / MANIFEST))
    if added := sorted(set(_names(folder)) - named.keys()):
        raise CheckpointError(
            f"{folder} holds {shown(added[0])}, which no signature covers: {MANIFEST} does not "
            "name it. Take it away, or ask the maker of the folder."
        )


def _check_names(names: Collection[str], source: str) -> None:
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    for name in names:
        if not is_inside(name):
            raise CheckpointError(f"{source} names the file {name[:100]!r}, which is not allowed.")
        if name == MANIFEST:
            raise CheckpointError(f"{source} names {MANIFEST}, which cannot hold its own digest.")
        if name in folders:
            raise CheckpointError(f"{source} names {name} as a file and as a folder.")


def _names(folder: Path) -> list[str]:
    names = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    own = sorted(
        n for n in names if n not in (*FREE, MANIFEST, SIGNED_BY) and not n.startswith(HIDDEN)
    )
    for name in own:
        check_kind(folder / name, folder)
    return own
