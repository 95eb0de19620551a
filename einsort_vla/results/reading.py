"""Records as JSON: one strict reader and one writer for every file of results."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar, Literal, Protocol, Union, get_args, get_origin, get_type_hints

from einsort_vla.atomic import write_text
from einsort_vla.errors import CheckpointError


class Record(Protocol):
    """A frozen dataclass that is a file of its own."""

    SCHEMA: ClassVar[int]  # moves when a field is added, renamed or taken out


def write_record(path: Path, record: Record) -> None:
    """Write it with its schema, whole or not at all."""
    content = {"schema": record.SCHEMA, **asdict(record)}  # pyright: ignore[reportArgumentType]
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_record[R: Record](kind: type[R], path: Path) -> R:
    """Read what `write_record` wrote.

    Raises:
        CheckpointError: the file is missing, no JSON, of another schema, or a field is missing,
            unknown or of another type; the message names the file and the field.
    """
    content = read_json(path)
    if (found := content.pop("schema", None)) != kind.SCHEMA:
        raise CheckpointError(
            f"{path} has schema {found}; this version reads {kind.SCHEMA}. "
            "Run the evaluation again."
        )
    return record_from(kind, content, path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return content


def record_from[T](
    kind: type[T], content: object, path: Path, *, ignore_unknown: bool = False
) -> T:
    """A dataclass from plain data.

    Args:
        kind: the dataclass; its fields may be dataclasses, tuples, mappings, literals, plain values
            and each of these or None.
        content: as JSON gives it.
        path: the file that errors name.
        ignore_unknown: whether fields that the dataclass lacks are passed over.

    Raises:
        CheckpointError: a field is missing, unknown or of another type.
    """
    try:
        return _record(kind, content, "", ignore_unknown)
    except _MismatchError as error:
        raise CheckpointError(f"{path}: {error} Run the evaluation again.") from None


class _MismatchError(Exception):
    """The message names the field, what was found and what is needed."""


def _record(kind: type[Any], content: object, name: str, ignore_unknown: bool = False) -> Any:
    if not isinstance(content, dict):
        raise _mismatch(content, name, "an object")
    types, values = _types(kind), {}
    unknown = [key for key in content if key not in types]
    if unknown and not ignore_unknown:
        raise _MismatchError(f"the field {_inside(name, unknown[0])} is unknown.")
    for field in fields(kind):
        inner = _inside(name, field.name)
        if field.name in content:
            values[field.name] = _value(types[field.name], content[field.name], inner)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise _MismatchError(f"the field {inner} is missing.")
    return kind(**values)


@cache
def _types(kind: type[Any]) -> dict[str, Any]:
    types = get_type_hints(kind)
    return {field.name: types[field.name] for field in fields(kind)}


def _value(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return _record(hint, value, name)  # pyright: ignore[reportArgumentType]
    if origin in (Union, UnionType):
        (inner,) = (each for each in arguments if each is not NoneType)
        return None if value is None else _value(inner, value, name)
    if origin is tuple:
        return _tuple(arguments, value, name)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _mismatch(value, name, "an object")
        return {key: _value(arguments[1], v, _inside(name, key)) for key, v in value.items()}
    if origin is Literal:
        is_right, wanted = value in arguments, " or ".join(map(repr, arguments))
    elif hint is float:
        is_right, wanted = type(value) in (int, float), "a number"
    else:
        is_right, wanted = type(value) is hint, f"of type {hint.__name__}"
    if not is_right:
        raise _mismatch(value, name, wanted)
    return float(value) if hint is float else value


def _tuple(arguments: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise _mismatch(value, name, "a list")
    hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
    if len(hints) != len(value):
        raise _mismatch(value, name, f"a list of {len(hints)}")
    inside = zip(hints, value, strict=True)
    return tuple(_value(hint, v, f"{name}[{k}]") for k, (hint, v) in enumerate(inside))


def _mismatch(found: object, name: str, wanted: str) -> _MismatchError:
    field, text = f"the field {name}" if name else "the whole", repr(found)
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return _MismatchError(f"{field} is {shown}, not {wanted}.")


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key
