"""What changed between two compressed folders, block by block: an update to send to robots.

A patch is a safetensors file. For each changed file of the new folder it says which runs of bytes
are copied from the old file, and holds the others. Tensors are compared with those of their name,
wherever they lie: another plan moves them all. Metadata hold the new manifest and the fingerprint
of the old one. A patch is checked whole before a byte of the new folder is written.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from safetensors.numpy import save_file

from einsort_vla.atomic import check_apart, check_new, check_parent, new_file
from einsort_vla.checkpoint import manifest
from einsort_vla.checkpoint.card import CARD
from einsort_vla.checkpoint.read_files import file_sha256
from einsort_vla.checkpoint.saved import was_saved
from einsort_vla.checkpoint.side_files import check_kind
from einsort_vla.claims import atomic_folder
from einsort_vla.errors import CheckpointError
from einsort_vla.reading import as_record, parse_json, read_text
from einsort_vla.tensors import TensorFile, open_tensors

FORMAT = "einsort-patch-3"
RUNS, DATA, CARD_DATA = ":runs", ":data", "card"  # a file's tensors; the one of the model card
BLOCK = 4096  # bytes
_Size = Annotated[int, msgspec.Meta(ge=0, le=2**50)]
Run = tuple[int, int, int]  # where it lies in the old file (or -1), in the new one, its bytes


class _Metadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    old_manifest_sha256: manifest.Sha256
    manifest: str
    sizes: str


class _Change(NamedTuple):
    """How a file of the new folder is made."""

    runs: Sequence[Run]
    data: np.ndarray  # (n,) uint8


@dataclass(frozen=True)
class _Patch:
    """The content of a patch, checked against itself."""

    old_manifest_sha256: str
    manifest: str
    files: Mapping[str, str]  # fingerprint by name
    sizes: Mapping[str, int]  # bytes
    changes: Mapping[str, _Change]
    card: bytes | None


def diff(old: Path, new: Path, patch: Path) -> None:
    """Write a patch that makes the folder `new` out of `old`.

    Raises:
        CheckpointError: a folder is damaged, not compressed or has a link that leads out of it, or
            the patch exists already.
        UsageError: the patch lies in one of them.
    """
    check_new(patch)
    check_parent(patch)
    check_apart(patch, old, new)
    old_text, new_text = _manifest(old), _manifest(new)
    before, after = manifest.parse(old_text, str(old)), manifest.parse(new_text, str(new))
    tensors: dict[str, np.ndarray] = {}
    sizes = {name: (new / name).stat().st_size for name in after}
    for name in sorted(after):
        if before.get(name) != after[name]:
            runs, data = _compare(old / name, new / name)
            tensors[name + RUNS] = np.array(runs, dtype=np.int64).reshape(-1, 3)
            tensors[name + DATA] = np.frombuffer(data, dtype=np.uint8)
    if (new / CARD).is_file():
        check_kind(new / CARD, new)  # no manifest names it
        tensors[CARD_DATA] = np.fromfile(new / CARD, dtype=np.uint8)
    metadata = {
        "format": FORMAT,
        "old_manifest_sha256": _sha256(old_text),
        "manifest": new_text,
        "sizes": json.dumps(sizes),
    }
    with new_file(patch) as partial:
        save_file(tensors, partial, metadata=metadata)


def apply(old: Path, patch: Path, destination: Path) -> None:
    """Make the new folder; it appears when every file of it has the fingerprint it must have.

    Raises:
        CheckpointError: the old folder is not the one the patch was made from, the patch is
            damaged, or the destination exists.
        UsageError: another process is writing the destination, or it lies in the old folder.
    """
    with atomic_folder(destination, old) as partial:
        _fill(old, patch, partial)


def _fill(old: Path, patch: Path, partial: Path) -> None:
    old_text, content = _manifest(old), _read(patch)
    before = manifest.parse(old_text, str(old))
    if _sha256(old_text) != content.old_manifest_sha256:
        raise CheckpointError(
            f"{patch} was made for another folder than {old}. Give the one that was OLD in "
            "`einsort-vla diff`."
        )
    for name, size in content.sizes.items():
        if name in content.changes:
            _check_runs(f"{patch}: {name}", old / name, content.changes[name], size)
        elif name not in before:
            raise CheckpointError(f"{patch} is damaged: nothing in it makes {name}.")
    (partial / manifest.MANIFEST).write_text(content.manifest, encoding="utf-8")
    if content.card is not None:
        (partial / CARD).write_bytes(content.card)
    for name in content.sizes:
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        if name in content.changes:
            _build(old / name, partial / name, content.changes[name])
        else:
            shutil.copyfile(old / name, partial / name)
    for name, digest in content.files.items():
        if file_sha256(partial / name) != digest:
            raise CheckpointError(
                f"{patch} is damaged: its {name} is not the file that was written."
            )


def _manifest(folder: Path) -> str:
    """Its text, once it agrees; of what Transformers wrote, as it would be now."""
    if not manifest.exists(folder) and was_saved(folder):
        return manifest.describe(folder)
    manifest.check(folder)
    return read_text(folder / manifest.MANIFEST)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(patch: Path) -> _Patch:
    file = open_tensors(patch)
    if file.metadata.get("format") != FORMAT:
        raise CheckpointError(f"{patch} is no patch that `einsort-vla diff` wrote.")
    about = as_record(dict(file.metadata), _Metadata, f"{patch}: its metadata")
    files = manifest.parse(about.manifest, f"{patch}: the manifest in it")
    sizes = parse_json(about.sizes, dict[str, _Size], f"{patch}: sizes in its metadata")
    if other := sizes.keys() ^ files.keys():
        raise CheckpointError(f"{patch} is damaged: {min(other)[:99]!r} has no size or no digest.")
    changes = {
        n: _read_change(file, n) for n in files if {n + RUNS, n + DATA} & file.tensors.keys()
    }
    card = _part(file, CARD_DATA, "U8", 1) if CARD_DATA in file.tensors else None
    used = {name + part for name in changes for part in (RUNS, DATA)} | {CARD_DATA}
    if left := file.tensors.keys() - used:
        raise CheckpointError(f"{patch} is damaged: {min(left)} is of no file in its manifest.")
    return _Patch(
        about.old_manifest_sha256, about.manifest, files, sizes, changes,
        None if card is None else card.tobytes(),
    )  # fmt: skip


def _read_change(file: TensorFile, name: str) -> _Change:
    runs, data = _part(file, name + RUNS, "I64", 2), _part(file, name + DATA, "U8", 1)
    if runs.shape[1] != 3:
        raise CheckpointError(f"{file.path} is damaged: {name}{RUNS} has the shape {runs.shape}.")
    return _Change(runs.tolist(), data)


def _part(file: TensorFile, name: str, dtype: str, n_dimensions: int) -> np.ndarray:
    stored = file.tensors.get(name)
    if stored is None:
        raise CheckpointError(f"{file.path} is damaged: it lacks {name}.")
    if (stored.dtype, len(stored.shape)) != (dtype, n_dimensions):
        raise CheckpointError(
            f"{file.path} is damaged: {name} is {stored.dtype} of shape {stored.shape}."
        )
    return stored.read().numpy()


def _check_runs(source: str, old: Path, change: _Change, size: int) -> None:
    """Refuse runs that leave a file, leave gaps or overlap, or take bytes twice.

    `diff` takes no byte of the old file twice: what a patch makes is never larger than both.
    """
    n_old = old.stat().st_size if old.is_file() else 0
    position = n_copied = n_fresh = 0
    for first, place, length in change.runs:
        is_copied = first >= 0
        if place != position or length < 1 or first < -1 or (is_copied and first + length > n_old):
            raise CheckpointError(f"{source} is damaged: the run {(first, place, length)}.")
        position += length
        n_copied, n_fresh = n_copied + is_copied * length, n_fresh + (not is_copied) * length
    if position != size or n_fresh != len(change.data) or n_copied > n_old:
        raise CheckpointError(
            f"{source} is damaged: its runs make {position} bytes of {size}, {n_copied} of the "
            f"{n_old} old ones and {n_fresh} of {len(change.data)} new ones."
        )


def _compare(old: Path, new: Path) -> tuple[list[Run], bytes]:
    """The runs that make up the new file, in its order, and the bytes that the old one has not."""
    theirs, ours = _content(old), _content(new)
    places = _segments(old) if old.is_file() else {}
    runs: list[Run] = []
    fresh: list[bytes] = []
    for name, (start, stop) in _segments(new).items():
        first, last = places.get(name, (0, 0))
        for position in range(start, stop, BLOCK):
            block = ours[position : min(position + BLOCK, stop)]
            source = first + position - start
            is_same = np.array_equal(theirs[source : min(source + len(block), last)], block)
            if not is_same:
                fresh.append(block.tobytes())
            _append(runs, (source if is_same else -1, position, len(block)))
    return runs, b"".join(fresh)


def _append(runs: list[Run], run: Run) -> None:
    """Add a run, to the last one if it only goes on with it."""
    if runs:
        source, place, length = runs[-1]
        follows = source + length == run[0] if source >= 0 else run[0] < 0
        if follows and place + length == run[1]:
            runs[-1] = (source, place, length + run[2])
            return
    runs.append(run)


def _build(old: Path, new: Path, change: _Change) -> None:
    theirs, used = _content(old), 0
    with new.open("wb") as file:
        for source, _, length in change.runs:
            if source >= 0:
                file.write(theirs[source : source + length])
            else:
                file.write(change.data[used : used + length])
                used += length


def _content(path: Path) -> np.ndarray:
    """The bytes of a file, read when they are looked at."""
    if not path.is_file() or path.stat().st_size == 0:
        return np.zeros(0, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r")


def _segments(path: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends; any other file is one segment."""
    whole = {"": (0, path.stat().st_size)}
    if path.suffix != ".safetensors":
        return whole
    try:
        file = open_tensors(path)
    except CheckpointError:  # whatever a side file of that name is
        return whole
    tensors = {name: (stored.start, stored.stop) for name, stored in file.tensors.items()}
    return {"": (0, file.data_start), **dict(sorted(tensors.items(), key=lambda item: item[1]))}
