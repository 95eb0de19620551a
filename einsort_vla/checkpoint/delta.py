"""What changed between two compressed folders, block by block: an update to send to robots.

A patch is a safetensors file. For each changed file of the new folder it says which runs of bytes
are copied from the old file, and holds the others. Tensors are compared with those of their name,
wherever they lie: another plan moves them all. Metadata hold the new manifest and the fingerprint
of the old one.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from einsort_vla.atomic import check_apart, check_new, check_parent, new_file
from einsort_vla.checkpoint import manifest
from einsort_vla.checkpoint.card import CARD
from einsort_vla.checkpoint.read_files import file_sha256
from einsort_vla.checkpoint.source import open_weights
from einsort_vla.claims import atomic_folder
from einsort_vla.errors import CheckpointError

FORMAT = "einsort-patch-2"
BLOCK = 4096  # bytes
Run = tuple[int, int, int]  # where it lies in the old file (or -1), in the new one, its bytes


def diff(old: Path, new: Path, patch: Path) -> None:
    """Write a patch that makes the folder `new` out of `old`.

    Raises:
        CheckpointError: a folder is damaged or not compressed, or the patch exists already.
        UsageError: the patch lies in one of them.
    """
    check_new(patch)
    check_parent(patch)
    check_apart(patch, old, new)
    before, after = manifest.check(old), manifest.check(new)
    tensors: dict[str, Tensor] = {}
    sizes = {name: (new / name).stat().st_size for name in after}
    for name in sorted(after):
        if before.get(name) != after[name]:
            runs, data = _compare(old / name, new / name)
            tensors[f"{name}:runs"] = torch.tensor(runs, dtype=torch.int64).view(-1, 3)
            tensors[f"{name}:data"] = torch.from_numpy(np.array(bytearray(data), dtype=np.uint8))
    metadata = {
        "format": FORMAT,
        "old_manifest_sha256": file_sha256(old / manifest.MANIFEST),
        "manifest": (new / manifest.MANIFEST).read_text(encoding="utf-8"),
        "sizes": json.dumps(sizes),
        "card": _card(new),
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
    before = manifest.check(old)
    with open_weights(patch) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{patch} is no patch that `einsort-vla diff` wrote.")
    if file_sha256(old / manifest.MANIFEST) != metadata.get("old_manifest_sha256"):
        raise CheckpointError(f"{patch} was made for another folder than {old}.")
    with _damage_told(patch):
        (partial / manifest.MANIFEST).write_text(metadata["manifest"], encoding="utf-8")
        (partial / CARD).write_text(metadata["card"], encoding="utf-8")
        for name, size in json.loads(metadata["sizes"]).items():
            manifest.check_inside(patch, name)
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            if f"{name}:runs" in tensors:
                runs, data = tensors[f"{name}:runs"].tolist(), tensors[f"{name}:data"].numpy()
                _build(old / name, partial / name, runs, data, size)
            elif name in before:
                shutil.copyfile(old / name, partial / name)
        manifest.check(partial)


@contextmanager
def _damage_told(patch: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{patch} is damaged: {error}") from error


def _card(folder: Path) -> str:
    """The model card, which may be edited, so that no manifest names it."""
    card = folder / CARD
    return card.read_text(encoding="utf-8") if card.is_file() else ""


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


def _build(old: Path, new: Path, runs: Sequence[Run], data: np.ndarray, size: int) -> None:
    theirs, used = _content(old), 0
    with new.open("wb") as file:
        for source, place, length in runs:
            file.seek(place)
            if source >= 0:
                file.write(theirs[source : source + length].tobytes())
            else:
                file.write(data[used : used + length].tobytes())
                used += length
        file.truncate(size)


def _content(path: Path) -> np.ndarray:
    """The bytes of a file, read when they are looked at."""
    if not path.is_file() or path.stat().st_size == 0:
        return np.zeros(0, dtype=np.uint8)
    return np.memmap(path, dtype=np.uint8, mode="r")


def _segments(path: Path) -> dict[str, tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends; any other file is one segment."""
    size = path.stat().st_size
    if path.suffix != ".safetensors":
        return {"": (0, size)}
    with path.open("rb") as file:
        n_header = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(n_header))
    base = 8 + n_header
    tensors = {
        name: (base + entry["data_offsets"][0], base + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return {"": (0, base), **dict(sorted(tensors.items(), key=lambda item: item[1]))}
