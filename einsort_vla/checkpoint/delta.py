"""What changed between two compressed folders, block by block: an update to send to robots.

A patch is a safetensors file. For each changed file of the new folder it holds the numbers of its
changed blocks and their bytes; its metadata hold the new manifest and the fingerprint of the old.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from einsort_vla.checkpoint import manifest
from einsort_vla.checkpoint.source import file_sha256, open_weights
from einsort_vla.errors import CheckpointError

FORMAT = "einsort-patch-1"
BLOCK = 4096  # bytes


def diff(old: Path, new: Path, patch: Path) -> None:
    """Write a patch that makes the folder `new` out of `old`.

    Raises:
        CheckpointError: a folder is damaged or not compressed, or the patch exists already.
    """
    if patch.exists():
        raise CheckpointError(f"{patch} exists already; nothing was written over.")
    before, after = manifest.check(old), manifest.check(new)
    tensors: dict[str, Tensor] = {}
    sizes = {name: (new / name).stat().st_size for name in after}
    for name in sorted(after):
        if before.get(name) != after[name]:
            found = list(_changed_blocks(old / name, new / name))
            numbers = [number for number, _ in found]
            data = np.frombuffer(b"".join(block for _, block in found), dtype=np.uint8)
            tensors[f"{name}:blocks"] = torch.tensor(numbers, dtype=torch.int64)
            tensors[f"{name}:data"] = torch.from_numpy(data.copy())
    metadata = {
        "format": FORMAT,
        "old_manifest_sha256": file_sha256(old / manifest.MANIFEST),
        "manifest": (new / manifest.MANIFEST).read_text(encoding="utf-8"),
        "sizes": json.dumps(sizes),
    }
    unfinished = patch.with_name(f"{patch.name}.partial")
    save_file(tensors, unfinished, metadata=metadata)
    os.replace(unfinished, patch)


def apply(old: Path, patch: Path, destination: Path) -> None:
    """Make the new folder; it appears when every file of it has the fingerprint it must have.

    Raises:
        CheckpointError: the old folder is not the one the patch was made from, the patch is
            damaged, or the destination exists.
    """
    if destination.exists():
        raise CheckpointError(f"{destination} exists already; nothing was written over.")
    before = manifest.check(old)
    with open_weights(patch) as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{patch} is no patch that `einsort-vla diff` wrote.")
    if file_sha256(old / manifest.MANIFEST) != metadata.get("old_manifest_sha256"):
        raise CheckpointError(f"{patch} was made for another folder than {old}.")
    partial = destination.with_name(f"{destination.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        (partial / manifest.MANIFEST).write_text(metadata["manifest"], encoding="utf-8")
        for name, size in json.loads(metadata["sizes"]).items():
            if ".." in Path(name).parts or Path(name).is_absolute():
                raise CheckpointError(f"{patch} would write outside of the folder: {name}.")
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            if name in before:
                shutil.copyfile(old / name, partial / name)
            _write_blocks(partial / name, tensors, name, size)
        manifest.check(partial)
        os.replace(partial, destination)
    except (KeyError, ValueError, IndexError) as error:
        raise CheckpointError(f"{patch} is damaged: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _changed_blocks(old: Path, new: Path) -> Iterator[tuple[int, bytes]]:
    """(number, bytes) of every block of a file that another file has not at the same place."""
    with new.open("rb") as ours, (old if old.is_file() else Path(os.devnull)).open("rb") as theirs:
        number = 0
        while block := ours.read(BLOCK):
            if block != theirs.read(BLOCK):
                yield number, block
            number += 1


def _write_blocks(path: Path, tensors: dict[str, Tensor], name: str, size: int) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        if f"{name}:blocks" in tensors:
            data = tensors[f"{name}:data"].numpy().tobytes()
            for k, number in enumerate(tensors[f"{name}:blocks"].tolist()):
                file.seek(number * BLOCK)
                file.write(data[k * BLOCK : (k + 1) * BLOCK])
        file.truncate(size)
