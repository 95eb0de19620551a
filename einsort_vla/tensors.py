"""Safetensors files that others wrote: the whole header is checked before a tensor is read.

docs/format.md has the bounds. A tensor is read into memory of its own: a map of the file would
change with the file.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta
from torch import Tensor

from einsort_vla.errors import CheckpointError
from einsort_vla.reading import MAX_JSON, check_fetched, check_file, is_name, parse_json

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
# All types of the format: a file may hold what is not read here.
_OTHER_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "U32": 32, "U64": 64, "C64": 64,
}  # fmt: skip
_BITS = {name: 8 * dtype.itemsize for name, dtype in DTYPES.items()} | _OTHER_BITS
MAX_DIMENSIONS = 8
MAX_NUMBERS = 2**36  # of one tensor, and in any of its dimensions, even if another one is 0
MAX_NAME = 2048  # characters
_CHUNK = 2**20  # numbers
_AGAIN = "Fetch the file again."


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies, and what it is, in the names of safetensors (`BF16`)."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file
    stop: int

    def read(self) -> Tensor:
        """The tensor, in memory of its own.

        Raises:
            CheckpointError: its type is not one of `DTYPES`, or the file was cut in the meantime.
        """
        if self.dtype not in DTYPES:
            raise CheckpointError(f"{self.file} holds the type {self.dtype}, which is not read.")
        if self.start == self.stop:
            return torch.empty(self.shape, dtype=DTYPES[self.dtype])
        content = torch.empty(self.stop - self.start, dtype=torch.uint8)
        try:
            with self.file.open("rb") as file:
                file.seek(self.start)
                n_read = file.readinto(memoryview(content.numpy()))
        except OSError as error:
            raise CheckpointError(f"{self.file} cannot be read: {error.strerror}.") from error
        if n_read != len(content):
            raise CheckpointError(f"{self.file} was truncated while it was read.")
        if self.dtype == "BOOL":  # other bytes than 0 and 1 are no truth values
            return content.ne(0).view(self.shape)
        return content.view(DTYPES[self.dtype]).view(self.shape)


@dataclass(frozen=True)
class TensorFile:
    """What a safetensors file says that it holds; its size agrees."""

    path: Path
    metadata: Mapping[str, str]
    tensors: Mapping[str, StoredTensor]
    data_start: int  # bytes

    def read(self, name: str) -> Tensor:
        """See `StoredTensor.read`."""
        return self.tensors[name].read()

    def read_all(self) -> dict[str, Tensor]:
        """Every tensor by its name."""
        return {name: stored.read() for name, stored in self.tensors.items()}


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtype: Annotated[str, Meta(max_length=16)]
    shape: Annotated[
        list[Annotated[int, Meta(ge=0, le=MAX_NUMBERS)]], Meta(max_length=MAX_DIMENSIONS)
    ]
    data_offsets: tuple[Annotated[int, Meta(ge=0)], Annotated[int, Meta(ge=0)]]


def open_tensors(path: Path) -> TensorFile:
    """The header of a safetensors file; no tensor is read yet.

    Raises:
        CheckpointError: it is missing, no file, the pointer of Git LFS to one, damaged or
            truncated, or beyond the bounds; or it cannot be read.
    """
    check_file(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(64)
            check_fetched(path, start)
            n_header = _n_header(path, start[:8], size)
            file.seek(8)
            text = file.read(n_header)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    content = parse_json(text, dict[str, msgspec.Raw], _header_of(path), _AGAIN)
    about = content.pop("__metadata__", msgspec.Raw(b"{}"))
    metadata = parse_json(about, dict[str, str], f"{_header_of(path)}: its metadata", _AGAIN)
    tensors = {name: _stored(path, name, raw, 8 + n_header) for name, raw in content.items()}
    _check_places(path, tensors, 8 + n_header, size)
    return TensorFile(path, metadata, tensors, 8 + n_header)


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor of any type holds neither NaN nor infinity."""
    return all(bool(part.isfinite().all()) for part in _pieces(tensor))


def has_nan(tensor: Tensor) -> bool:
    """Whether a tensor of any type holds NaN."""
    return any(bool(part.isnan().any()) for part in _pieces(tensor))


def _pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor of floating point bit by bit, in a type that torch can ask; of others nothing."""
    if tensor.is_floating_point():
        wide = tensor.dtype if tensor.dtype.itemsize > 1 else torch.float32  # as of float8
        yield from (part.to(wide) for part in tensor.flatten().split(_CHUNK))


def _header_of(path: Path) -> str:
    return f"the header of {path}"


def _damage(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged or truncated: {what}. {_AGAIN}")


def _n_header(path: Path, start: bytes, size: int) -> int:
    """Bytes of the header, which the first eight bytes tell."""
    if size < 8:
        raise _damage(path, f"it has {size} bytes" if size else "it is empty")
    n_header = int.from_bytes(start, "little")
    if n_header > size - 8:
        raise _damage(path, "its header would be longer than the file, or it is no safetensors")
    if n_header > MAX_JSON:
        raise CheckpointError(f"{path} has a header of more than {MAX_JSON} bytes; it is not read.")
    return n_header


def _stored(path: Path, name: str, raw: Any, base: int) -> StoredTensor:
    """One entry of the header, checked by itself."""
    if not is_name(name, MAX_NAME):
        raise _damage(path, f"a tensor is named {name[:40]!r}")
    entry = parse_json(raw, _Entry, f"{_header_of(path)}: {name}", _AGAIN)
    if entry.dtype not in _BITS:
        raise _damage(path, f"{name} has the type {entry.dtype!r}, which does not exist")
    if math.prod(max(1, n) for n in entry.shape) > MAX_NUMBERS:
        raise _damage(path, f"{name} has the shape {entry.shape}")
    start, stop = entry.data_offsets
    if 8 * (stop - start) != math.prod(entry.shape) * _BITS[entry.dtype]:
        raise _damage(
            path, f"{name} is {entry.dtype} of shape {entry.shape}, in {stop - start} bytes"
        )
    return StoredTensor(path, entry.dtype, tuple(entry.shape), base + start, base + stop)


def _check_places(path: Path, tensors: Mapping[str, StoredTensor], base: int, size: int) -> None:
    """Refuse tensors that overlap, gaps between them, and an end elsewhere than the file's."""
    position = base
    for name, stored in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if stored.start != position:
            raise _damage(path, f"{name} begins at byte {stored.start}, not {position}")
        position = stored.stop
    if position != size:
        raise _damage(path, f"it has {size} bytes, and its header promises {position}")
