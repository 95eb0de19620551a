"""Progress of an evaluation: a bar, or a line now and then where there is no terminal."""

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINES_IN_A_LOG = 20


class Step(Protocol):
    """To be called after each piece of work, with its kind and what else there is to say."""

    def __call__(self, kind: str, more: str = "") -> None: ...


@contextmanager
def counting(
    what: str, kinds: Sequence[str], console: Console, n_before: int = 0, at_first: str = ""
) -> Iterator[Step]:
    """Counts pieces of work as they are done.

    Args:
        what: the pieces are, as in "40/64 pictures read, 0.4 min left".
        kinds: one for each piece; pieces of one kind are expected to take alike.
        console: where it is shown.
        n_before: pieces that an earlier start has done.
        at_first: said until the first piece is done.
    """
    left, seconds, last = Counter(kinds), defaultdict[str, list[float]](list), time.monotonic()
    n_total = n_before + len(kinds)
    every = math.ceil(n_total / LINES_IN_A_LOG)
    columns = (
        _text("{task.fields[what]}"), BarColumn(), MofNCompleteColumn(), _text("{task.description}")
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(at_first, total=n_total, completed=n_before, what=what)

        def step(kind: str, more: str = "") -> None:
            nonlocal last
            now = time.monotonic()
            seconds[kind].append(now - last)
            last = now
            left[kind] -= 1
            text = f"{_expected(left, seconds) / 60:.1f} min left" + (more and f", {more}")
            bar.update(task, advance=1, description=text)
            n_done = n_total - left.total()
            if not console.is_terminal and n_done % every == 0:
                console.print(f"{n_done}/{n_total} {what}, {text}")

        yield step


def _text(form: str) -> TextColumn:
    """Of names as they are, brackets and all."""
    return TextColumn(form, markup=False)


def _expected(left: Counter[str], seconds: dict[str, list[float]]) -> float:
    """Seconds for what is left; kinds of which none is done yet as the others on average."""
    known = [spent for own in seconds.values() for spent in own]
    means = {kind: sum(own) / len(own) for kind, own in seconds.items()}
    return sum(n * means.get(kind, sum(known) / len(known)) for kind, n in left.items())
