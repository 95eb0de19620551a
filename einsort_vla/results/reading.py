"""Records as JSON: one strict reader and one writer for every file of results."""

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from einsort_vla.atomic import write_text
from einsort_vla.errors import CheckpointError


class Record(Protocol):
    """A frozen dataclass that is a file of its own."""

    SCHEMA: ClassVar[int]  # moves when a field is added, renamed or taken out


T = TypeVar("T")
R = TypeVar("R", bound=Record)


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
        raise _MismatchError(f"{name or 'the whole'} is {_shown(content)}, not an object.")
    hints = _hints(kind)
    unknown = [key for key in content if key not in hints]
    if unknown and not ignore_unknown:
        raise _MismatchError(f"the field {_inside(name, unknown[0])} is unknown.")
    if missing := [key for key, (_, needed) in hints.items() if needed and key not in content]:
        raise _MismatchError(f"the field {_inside(name, missing[0])} is missing.")
    return kind(
        **{
            key: _value(hint, content[key], _inside(name, key))
            for key, (hint, _) in hints.items()
            if key in content
        }
    )


@cache
def _hints(kind: type[Any]) -> dict[str, tuple[Any, bool]]:
    """Type of each field, and whether it must be there."""
    types = get_type_hints(kind)
    return {
        field.name: (
            types[field.name],
            field.default is MISSING and field.default_factory is MISSING,
        )
        for field in fields(kind)
    }


def _value(hint: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if is_dataclass(hint):
        return _record(hint, value, name)  # pyright: ignore[reportArgumentType]
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (inner,) = (each for each in arguments if each is not NoneType)
        return _value(inner, value, name)
    if origin is Literal:
        return _checked(value in arguments, value, name, " or ".join(map(repr, arguments)))
    if origin is tuple:
        return _tuple(arguments, value, name)
    if origin in (dict, Mapping):
        _checked(isinstance(value, dict), value, name, "an object")
        return {key: _value(arguments[1], v, _inside(name, key)) for key, v in value.items()}
    if hint is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(_checked(is_number, value, name, "a number"))
    return _checked(type(value) is hint, value, name, f"of type {hint.__name__}")


def _tuple(arguments: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    _checked(isinstance(value, list | tuple), value, name, "a list")
    hints = arguments
    if arguments[-1] is Ellipsis:
        hints = arguments[:1] * len(value)
    _checked(len(hints) == len(value), value, name, f"a list of {len(hints)}")
    pairs = zip(hints, value, strict=True)
    return tuple(_value(hint, each, f"{name}[{k}]") for k, (hint, each) in enumerate(pairs))


def _checked[T](is_right: bool, value: T, name: str, wanted: str) -> T:
    if not is_right:
        raise _MismatchError(f"the field {name} is {_shown(value)}, not {wanted}.")
    return value


def _inside(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
