"""Logs of JSON lines that a run goes on with after any kill: what is whole in them counts."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

Record = Mapping[str, Any]
Write = Callable[..., None]


def read_lines(log: Path) -> Iterator[dict[str, Any]]:
    """The records of a log, none if there is no such file; a line that was cut short is left out.

    Raises:
        UnicodeDecodeError: it is no text.
    """
    if not log.exists():
        return
    for line in log.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def as_lines(records: Iterable[Record]) -> str:
    """One line each."""
    return "".join(json.dumps(record) + "\n" for record in records)


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

        def write(*records: Record) -> None:
            file.write(as_lines(records).encode())
            file.flush()

        yield write


def _is_whole(line: bytes) -> bool:
    """Whether only the end of the line is missing."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
