"""Data that others wrote, as typed records: checked whole before any of it is believed.

A record is a `msgspec.Struct` (with `forbid_unknown_fields`, and `msgspec.Meta` for bounds) or a
dataclass. A right fingerprint proves nothing of what a file holds: whoever wrote it computed it.
"""

import json
import math
import os
import stat
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from einsort_vla.errors import CheckpointError, cut

MAX_JSON = 2**25  # bytes; lists of nothing take twenty times as much memory as their text
MAX_PATH, MAX_NAME = 1024, 255  # bytes of a path in a folder, and of each name in it
MAX_DEPTH = 100  # of objects in objects in what is written again
AGAIN = "Fetch the folder again."
_LFS = b"version https://git-lfs"


def read_json[T](path: Path, kind: type[T], fix: str = "", limit: int = MAX_JSON) -> T:
    """The content of a JSON file.

    Args:
        path: of the file.
        kind: a record, or any type that msgspec knows, such as `dict[str, Any]`.
        fix: what the reader of an error can do, as a sentence.
        limit: bytes; a longer file is refused before it is read.

    Raises:
        CheckpointError: it is missing, too long, no JSON, nested too deeply, or a field is missing,
            unknown, of another type or out of its bounds; the message names file and field.
    """
    return parse_json(read_text(path, limit), kind, str(path), fix)


def read_text(path: Path, limit: int = MAX_JSON) -> str:
    """A UTF-8 file of at most `limit` bytes.

    Raises:
        CheckpointError: it is missing, longer, or in another encoding.
    """
    try:
        check_file(path)  # a pipe would be waited for
        with path.open("rb") as file:
            content = file.read(limit + 1)
        check_fetched(path, content)
        if len(content) > limit:
            raise CheckpointError(f"{path} has more than {limit} bytes; such a file is not read.")
        return content.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}. "
            "If it is a text, save it as UTF-8."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_object(path: Path, fix: str = "") -> dict[str, Any]:
    """A JSON object of any content; `Infinity` and NaN are let be, as other tools write them.

    Raises:
        CheckpointError: it is missing, too long, no JSON, nested too deeply, or no object.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise _refusal(str(path), error, fix) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object." + (fix and f" {fix}"))
    if _is_deep(content):
        raise CheckpointError(f"{path} is damaged: it is nested too deeply." + (fix and f" {fix}"))
    return content


def _is_deep(content: Any) -> bool:
    """Whether plain data are nested beyond `MAX_DEPTH`."""
    layer = [content]
    for _ in range(MAX_DEPTH):
        if not layer:
            return False
        inner = (own.values() if isinstance(own, dict) else own for own in layer)
        layer = [each for values in inner for each in values if isinstance(each, dict | list)]
    return True


def check_file(path: Path) -> None:
    """Refuse what is no plain file.

    Raises:
        CheckpointError: it is missing, a folder, a pipe, a socket or a device.
    """
    try:
        found = "" if path.is_file() else what_is_at(path)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if found:
        raise CheckpointError(f"{path} {found}")


def what_is_at(path: Path) -> str:
    """What lies where a file should be: the end of a sentence that begins with the path."""
    if not path.exists():
        if path.is_symlink():
            return f"is a dangling link (to {os.readlink(path)}). {AGAIN}"
        return "does not exist."
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
    return f"is a {kinds.get(stat.S_IFMT(path.stat().st_mode), 'device')}, not a file."


def is_name(text: str, limit: int = MAX_NAME) -> bool:
    """Whether a name can be shown and stored: some characters, none of them a control code."""
    kinds = {unicodedata.category(letter) for letter in text[: limit + 1]}
    return 0 < len(text) <= limit and not kinds & {"Cc", "Cs"}


def is_inside(name: str) -> bool:
    """Whether a relative path, with `/` between its names, cannot lead out of its folder."""
    parts = name.split("/")
    return (
        is_name(name, MAX_PATH)
        and len(name.encode()) <= MAX_PATH
        and "\\" not in name
        and not {"", ".", ".."} & set(parts)
        and all(len(part.encode()) <= MAX_NAME for part in parts)
    )


def is_pointer(start: bytes) -> bool:
    """Whether a file that begins so is a pointer of Git LFS, not the file itself."""
    return start.startswith(_LFS)


def is_own_file(path: Path, folder: Path) -> bool:
    """Whether it is a plain file of a folder, and no link on the way there leads out of it."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def check_fetched(path: Path, start: bytes) -> None:
    """Refuse a file that begins as a pointer of Git LFS does.

    Raises:
        CheckpointError: it does.
    """
    if is_pointer(start):
        raise CheckpointError(
            f"{path} is a Git-LFS pointer: the file itself was not fetched. Run: git lfs pull"
        )


def parse_json[T](text: str | bytes, kind: type[T], source: str, fix: str = "") -> T:
    """As `read_json`, of a text; errors call it `source`."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise _refusal(source, error, fix) from error


def as_record[T](content: Any, kind: type[T], source: str, fix: str = "") -> T:
    """As `parse_json`, of plain data such as YAML gives; numbers must be finite."""
    try:
        record = msgspec.convert(content, type=kind)  # before its depth is walked
        _check_finite(content, "$", set())
        return record
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise _refusal(source, error, fix) from error


def _check_finite(value: Any, place: str, seen: set[int]) -> None:
    """`seen`: the containers walked before, by identity; YAML may name one a billion times."""
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError(f"Expected a finite number, got {value} - at `{place}`")
    if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_finite(inner, f"{place}.{key}", seen)
    else:
        for k, inner in enumerate(value):
            _check_finite(inner, f"{place}[{k}]", seen)


def _refusal(source: str, error: Exception, fix: str) -> CheckpointError:
    what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return CheckpointError(f"{source} is damaged: {cut(what)}." + (fix and f" {fix}"))
