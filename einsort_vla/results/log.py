"""Logs of JSON lines that a run goes on with after any kill: what is whole in them counts."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from einsort_vla.errors import CheckpointError
from einsort_vla.reading import check_file, parse_json
from einsort_vla.results.record import LARGEST

Write = Callable[..., None]
FIX = (
    "If a newer version of einsort-vla wrote it, read it with that one. Else take the line out: "
    "--resume runs again what it held."
)


def read_log[T](log: Path, kind: type[T]) -> Iterator[T]:
    """The records of a log, none if there is no such file; a last line cut short is left out.

    A figure that is NaN, infinite or beyond `LARGEST` is left out of its line: it counts as not
    measured.

    Raises:
        CheckpointError: another line is no such record; the message has its number.
    """
    if not log.exists():
        return
    check_file(log)
    try:
        with log.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and (line.endswith(b"\n") or not _is_cut(line)):
                    yield _record(line, kind, f"{log}, line {number},")
    except OSError as error:
        raise CheckpointError(f"{log} cannot be read: {error.strerror or error}.") from error


def _record[T](line: bytes, kind: type[T], source: str) -> T:
    try:
        return msgspec.json.decode(line, type=kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):  # NaN is no JSON
        with contextlib.suppress(ValueError, RecursionError, msgspec.MsgspecError):
            found = json.loads(line, object_pairs_hook=_unique)
            msgspec.convert(_filled(found), kind)  # NaN stands only where a fraction can
            line = json.dumps(measured(found)).encode()
        return parse_json(line, kind, source, FIX)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses a figure that is there twice: to leave one of them out would hide the other."""
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError
    return found


def _filled(value: Any) -> Any:
    """Plain data with one half for each number that `measured` leaves out."""
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner) for inner in value]
    return value if _is_measured(value) else 0.5


def measured(value: Any) -> Any:
    """Plain data without its numbers that are NaN, infinite or beyond `LARGEST`."""
    if isinstance(value, dict):
        return {key: measured(inner) for key, inner in value.items() if _is_measured(inner)}
    if isinstance(value, list):
        return [measured(inner) for inner in value if _is_measured(inner)]
    return value


def _is_measured(value: Any) -> bool:
    return not isinstance(value, float) or abs(value) <= LARGEST  # false for NaN, too


def as_lines(records: Iterable[Any]) -> str:
    """One line each, without figures that are NaN or infinite."""
    plain = (measured(msgspec.to_builtins(record)) for record in records)
    return "".join(json.dumps(each, allow_nan=False) + "\n" for each in plain)


@contextlib.contextmanager
def appending(log: Path) -> Iterator[Write]:
    """Gives a function that adds records, those of one call in one piece, and keeps them at once.

    What a kill has left of a line is taken away first.
    """
    with log.open("ab+") as file:
        file.seek(0)
        content = file.read()
        last = content[content.rfind(b"\n") + 1 :]
        if _is_whole(last):
            file.write(b"\n")
        else:
            file.truncate(len(content) - len(last))

        def write(*records: Any) -> None:
            file.write(as_lines(records).encode())
            file.flush()

        yield write


def _is_cut(line: bytes) -> bool:
    """Whether a last line is the beginning of a record, or zeros, as a lost write leaves."""
    begins = line.lstrip(b"\0 ")
    return not begins or (begins.startswith(b"{") and not _is_whole(line))


def _is_whole(line: bytes) -> bool:
    """Whether only the end of the line is missing."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
