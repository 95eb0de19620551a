"""Data that others wrote, as typed records: checked whole before any of it is believed.

A record is a `msgspec.Struct` (with `forbid_unknown_fields`, and `msgspec.Meta` for bounds) or a
dataclass. A right fingerprint proves nothing of what a file holds: whoever wrote it computed it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from einsort_vla.errors import CheckpointError

MAX_JSON = 2**25  # bytes; lists of nothing take twenty times as much memory as their text


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
        with path.open("rb") as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise CheckpointError(f"{path} has more than {limit} bytes; such a file is not read.")
        return content.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path} is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error


def parse_json[T](text: str | bytes, kind: type[T], source: str, fix: str = "") -> T:
    """As `read_json`, of a text; errors call it `source`."""
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise _refusal(source, error, fix) from error


def as_record[T](content: Any, kind: type[T], source: str, fix: str = "") -> T:
    """As `parse_json`, of plain data such as YAML gives; numbers must be finite."""
    try:
        _check_finite(content, "$")
        return msgspec.convert(content, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise _refusal(source, error, fix) from error


def _check_finite(value: Any, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise msgspec.ValidationError(f"Expected a finite number, got {value} - at `{place}`")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_finite(inner, f"{place}.{key}")
    elif isinstance(value, list | tuple):
        for k, inner in enumerate(value):
            _check_finite(inner, f"{place}[{k}]")


def _refusal(source: str, error: Exception, fix: str) -> CheckpointError:
    what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    return CheckpointError(f"{source} is damaged: {what}." + (fix and f" {fix}"))
