"""Progress of a text evaluation: a bar, or a line now and then where there is no terminal."""

import contextlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINES_IN_A_LOG = 20
Step = Callable[[str], None]


@contextlib.contextmanager
def counting(what: str, kinds: Sequence[str], console: Console) -> Iterator[Step]:
    """Gives a function to be called with its kind after each piece of work.

    Args:
        what: the pieces are, as in "40/64 pictures read, 0.4 min left".
        kinds: one for each piece; pieces of one kind are expected to take alike.
        console: where it is shown.
    """
    left, seconds, last = Counter(kinds), defaultdict[str, list[float]](list), time.monotonic()
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(kinds))

        def step(kind: str) -> None:
            nonlocal last
            now = time.monotonic()
            seconds[kind].append(now - last)
            last = now
            left[kind] -= 1
            text = f"{_expected(left, seconds) / 60:.1f} min left"
            bar.update(task, advance=1, description=text)
            n_done = len(kinds) - left.total()
            if not console.is_terminal and n_done % math.ceil(len(kinds) / LINES_IN_A_LOG) == 0:
                console.print(f"{n_done}/{len(kinds)} {what}, {text}", highlight=False)

        yield step


def _expected(left: Counter[str], seconds: dict[str, list[float]]) -> float:
    """Seconds for what is left; kinds of which none is done yet as the others on average."""
    known = [spent for own in seconds.values() for spent in own]
    means = {kind: sum(own) / len(own) for kind, own in seconds.items()}
    return sum(n * means.get(kind, sum(known) / len(known)) for kind, n in left.items())
