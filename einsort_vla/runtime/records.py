"""JSON that others wrote, as typed records, by the standard library alone.

A device has no msgspec, which `einsort_vla.reading` needs: it is compiled, so a program in one file
cannot carry it. One reader for both is what makes a tool refuse what a device refuses.

A record is a frozen dataclass of `str`, `int`, `float`, `bool`, `Any`, `Literal`, `X | None`,
`tuple[X, ...]`, `tuple[X, Y]`, `dict[str, X]`, or of records, `Annotated` with `Limits`.
"""

import json
import math
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from einsort_vla.errors import CheckpointError

MAX_JSON = 2**22  # bytes; lists of nothing take twenty times as much memory as their text
MAX_TEXT = 1000  # characters of any text in it
T = TypeVar("T")  # Python 3.10


@dataclass(frozen=True)
class Limits:
    """Of a number; of a text or collection, how long it may be."""

    low: float
    high: float


class _Mismatch(ValueError):
    """What is wrong, with its place."""


def read_record(path: Path, kind: type[T], fix: str = "") -> T:  # noqa: UP047  Python 3.10
    """The content of a JSON file.

    Args:
        path: of the file.
        kind: a record.
        fix: what the reader of an error can do, as a sentence.

    Raises:
        CheckpointError: it is missing, too long, no JSON, or a field is missing, unknown, of
            another type or out of its bounds; the message names file and field.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON + 1)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(content) > MAX_JSON:
        raise CheckpointError(f"{path} has more than {MAX_JSON} bytes; such a file is not read.")
    return parse_record(content, kind, str(path), fix)


def parse_record(  # noqa: UP047
    content: bytes, kind: type[T], source: str, fix: str = ""
) -> T:
    """As `read_record`, of bytes; errors call them `source`."""
    try:
        parsed = json.loads(
            content.decode(), parse_constant=_refuse_constant, object_pairs_hook=_unique
        )
        return _convert(parsed, kind, "")
    except (ValueError, RecursionError, OverflowError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise CheckpointError(f"{source} is damaged: {what}." + (fix and f" {fix}")) from error


def _refuse_constant(name: str) -> None:
    raise _Mismatch(f"it holds the number {name}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Mismatch(f"it holds {twice[:80]!r} twice in one object")
    return found


def _convert(value: Any, kind: Any, place: str) -> Any:
    """`value` as a `kind`."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _within(_convert(value, inner[0], place), inner[1], place)
    if origin in (Union, types.UnionType):
        (some,) = (one for one in inner if one is not type(None))
        return None if value is None else _convert(value, some, place)
    if origin is Literal:
        return _one_of(value, inner, place)
    if origin in _COLLECTIONS:
        return _COLLECTIONS[origin](value, inner, place)
    if isinstance(kind, type) and is_dataclass(kind):
        return _record(value, kind, place)
    return _plain(value, kind, place)


def _within(value: Any, limits: Limits, place: str) -> Any:
    size = value if isinstance(value, int | float) else len(value)
    if not limits.low <= size <= limits.high:
        what = value if isinstance(value, int | float) else f"{size} entries or characters"
        raise _Mismatch(f"{place} is {what}, it must be {limits.low} to {limits.high}")
    return value


def _one_of(value: Any, known: tuple[Any, ...], place: str) -> Any:
    if not any(type(value) is type(one) and value == one for one in known):
        raise _Mismatch(f"{place} is {_shown(value)}, it must be {' or '.join(map(repr, known))}")
    return value


def _tuple(value: Any, inner: tuple[Any, ...], place: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _Mismatch(f"{place} is {_shown(value)}, not a list")
    if inner[-1] is Ellipsis:
        inner = (inner[0],) * len(value)
    if len(inner) != len(value):
        raise _Mismatch(f"{place} has {len(value)} entries, it must have {len(inner)}")
    return tuple(_convert(value[k], kind, f"{place}[{k}]") for k, kind in enumerate(inner))


def _dict(value: Any, inner: tuple[Any, ...], place: str) -> dict[str, Any]:
    return {
        _convert(name, inner[0], f"a name in {place}"): _convert(own, inner[1], f"{place}.{name}")
        for name, own in _object(value, place).items()
    }


_COLLECTIONS: dict[Any, Callable[[Any, tuple[Any, ...], str], Any]] = {tuple: _tuple, dict: _dict}


def _record(value: Any, kind: type, place: str) -> Any:
    given, known = _object(value, place), {field.name: field for field in fields(kind)}
    at = f" in {place}" if place else ""
    if unknown := given.keys() - known.keys():
        raise _Mismatch(f"the field {min(unknown)[:80]!r}{at} is unknown")
    needed = {name for name, field in known.items() if field.default is MISSING}
    if lacking := needed - given.keys():
        raise _Mismatch(f"the field {min(lacking)!r}{at} is missing")
    kinds = get_type_hints(kind, include_extras=True)
    prefix = f"{place}." if place else ""
    return kind(**{n: _convert(own, kinds[n], f"{prefix}{n}") for n, own in given.items()})


def _plain(value: Any, kind: Any, place: str) -> Any:
    if kind is Any:
        return value
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise _Mismatch(f"{place} is {_shown(value)}, not of type {kind.__name__}")
    if kind is float and not math.isfinite(value):
        raise _Mismatch(f"{place} is not finite")
    # What is shown in a terminal must not steer it.
    if kind is str and not (value.isprintable() and len(value) <= MAX_TEXT):
        raise _Mismatch(f"{place} is too long or holds characters that cannot be printed")
    return value


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Mismatch(f"{place or 'it'} is {_shown(value)}, not an object")
    return value


def _shown(value: Any) -> str:
    return ascii(value)[:80] if not isinstance(value, dict | list) else f"a {type(value).__name__}"
