"""What is kept of an evaluation, as records; and the files that hold one record each."""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import msgspec
from msgspec import Meta

from einsort_vla.atomic import write_text
from einsort_vla.errors import CheckpointError
from einsort_vla.reading import as_record, read_json

AGAIN = "Run the evaluation again."
Name = Annotated[str, Meta(pattern=r"^[^/\\\0]+\Z")]  # becomes a part of a file's name
LARGEST = 1e100  # of any figure: what is computed of such numbers stays finite
Figure = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Amount = Annotated[float, Meta(ge=0, le=LARGEST)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Share = Annotated[float, Meta(ge=0, le=1)]
Margin = Annotated[float, Meta(ge=1e-6, lt=1)]  # pairs are counted by one over its square


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all records: a field that is unknown or of another type is refused."""


class FileRecord(Protocol):
    """A record that is a file of its own."""

    SCHEMA: ClassVar[int]  # moves when a field is added, renamed or taken out


def write_record(path: Path, record: FileRecord) -> None:
    """Write it with its schema, whole or not at all."""
    content = {"schema": record.SCHEMA, **msgspec.to_builtins(record)}
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_record[R: FileRecord](kind: type[R], path: Path) -> R:
    """Read what `write_record` wrote.

    Raises:
        CheckpointError: the file is missing, no JSON, of another schema, or a field is missing,
            unknown or of another type; the message names the file and the field.
    """
    content = read_json(path, dict[str, Any], AGAIN)
    _check_schema(content.pop("schema", None), kind.SCHEMA, path)
    return as_record(content, kind, str(path), AGAIN)


def _check_schema(found: object, wanted: int, path: Path) -> None:
    if not isinstance(found, int):
        raise CheckpointError(f"{path} has no schema; this version reads {wanted}. {AGAIN}")
    if found != wanted:
        writer, fix = ("a newer", "Use that one.") if found > wanted else ("an older", AGAIN)
        raise CheckpointError(
            f"{path} was written by {writer} version of einsort-vla (its schema is {found}; this "
            f"version reads {wanted}). {fix}"
        )
