"""A safetensors file written piece by piece, that a killed writer can go on with.

The header of a safetensors file (8 bytes of length, JSON, then the data) comes first. All sizes are
known from the plan, so that it is written at once, and each tensor at its place when it is made.
"""

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from einsort_vla.atomic import writing
from einsort_vla.errors import CheckpointError
from einsort_vla.tensors import DTYPES

NAMES = {dtype: name for name, dtype in DTYPES.items()}
ALIGNMENT = 8
SYNC_SECONDS = 1.0  # a disk takes milliseconds for it, whatever the size
Layout = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


class FileWriter:
    """Writes the tensors of a known layout, in any order.

    A file with the very same header that an earlier writer left is gone on with; what it had
    written is in `done`.

    Args:
        path: the unfinished file.
        layout: name to type and shape.
        metadata: of the file.
        journal: a file to note in what is written; without it nothing can be gone on with.

    Raises:
        CheckpointError: there is no room for the file.
    """

    def __init__(
        self, path: Path, layout: Layout, metadata: Mapping[str, str], journal: Path | None = None
    ) -> None:
        self._layout, self._journal = layout, journal
        header, self._offsets, size = _header(layout, metadata)
        self.done = self._names_done() if _begins_with(path, header) else set[str]()
        if not self.done:
            if journal:
                journal.unlink(missing_ok=True)
            _reserve(path, header, size)
        self._path = path
        self._unsynced: list[str] = []
        self._synced = time.monotonic()

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors in their places; a kill loses what was written in the last second at most.

        Raises:
            CheckpointError: a tensor is not of the layout, or the disk is full.
        """
        with writing(self._path), self._path.open("r+b") as file:
            for name, tensor in tensors.items():
                self._check(name, tensor)
                file.seek(self._offsets[name])
                flat = tensor.detach().cpu().contiguous().view(-1)
                file.write(memoryview(flat.view(torch.uint8).numpy()))
        self._unsynced += tensors
        self.done |= tensors.keys()
        if time.monotonic() > self._synced + SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Let all that was written survive a kill: on the disk first, in the journal then.

        Raises:
            CheckpointError: the disk is full.
        """
        with writing(self._path):
            with self._path.open("r+b") as file:
                os.fsync(file.fileno())
            if self._journal:
                with self._journal.open("a", encoding="utf-8") as journal:
                    journal.writelines(json.dumps(name) + "\n" for name in self._unsynced)
        self._unsynced, self._synced = [], time.monotonic()

    def finish(self) -> None:
        """Check that nothing is missing.

        Raises:
            CheckpointError: a tensor was not written.
        """
        if missing := self._layout.keys() - self.done:
            raise CheckpointError(f"{self._path}: {min(missing)} was not written.")
        self.sync()

    def _check(self, name: str, tensor: Tensor) -> None:
        if (tensor.dtype, tuple(tensor.shape)) != self._layout[name]:
            raise CheckpointError(
                f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, not "
                f"{self._layout[name][0]} of shape {self._layout[name][1]}."
            )

    def _names_done(self) -> set[str]:
        if self._journal is None or not self._journal.is_file():
            return set()
        names = set[str]()
        for line in self._journal.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]:
            with suppress(ValueError):  # a disk that was full has cut a line
                names.add(str(json.loads(line)))
        return names & self._layout.keys()


def file_bytes(layout: Layout, metadata: Mapping[str, str]) -> int:
    """Of the file that a `FileWriter` makes."""
    return _header(layout, metadata)[2]


def _header(layout: Layout, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int], int]:
    """The bytes before the data, each tensor's place in the file, and the file's size."""
    content: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    starts, position = {}, 0
    # Wide types first: then each tensor begins at a multiple of its element's size.
    for name in sorted(layout, key=lambda name: (-layout[name][0].itemsize, name)):
        dtype, shape = layout[name]
        starts[name] = position
        position += dtype.itemsize * torch.Size(shape).numel()
        offsets = [starts[name], position]
        content[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": offsets}
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return header, {n: len(header) + start for n, start in starts.items()}, len(header) + position


def _begins_with(path: Path, header: bytes) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(header)) == header


def _reserve(path: Path, header: bytes, size: int) -> None:
    with writing(path), path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)
        file.write(header)
