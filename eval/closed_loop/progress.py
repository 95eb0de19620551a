"""Progress of a run: a bar with ETA and running success, or plain lines in a log."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from einsort_vla.results.episode import EpisodeRecord


class EpisodeProgress:
    """Counts episodes as they end; a context manager."""

    def __init__(self, n_total: int, finished: Sequence[EpisodeRecord], console: Console) -> None:
        self.records = list(finished)
        self._n_total, self._console = n_total, console
        self._started, self._n_before = time.monotonic(), len(finished)
        self._bar = Progress(
            TextColumn("episodes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.description}"), console=console,
            disable=not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(self._running(), total=n_total, completed=len(self.records))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def add(self, record: EpisodeRecord) -> None:
        """Take one finished episode."""
        self.records.append(record)
        self._bar.update(self._task, advance=1, description=self._running())
        if record.error:
            self._console.print(f"{record.key}: {record.error}", highlight=False)
        every = max(1, self._n_total // 20)
        if not self._console.is_terminal and len(self.records) % every == 0:
            self._console.print(
                f"{len(self.records)}/{self._n_total} episodes, {self._eta()}, {self._running()}",
                highlight=False,
            )

    def tally(self) -> dict[str, tuple[int, int]]:
        """Arm to its successes and episodes so far."""
        n = Counter(record.arm for record in self.records)
        won = Counter(record.arm for record in self.records if record.is_success)
        return {arm: (won[arm], n[arm]) for arm in n}

    def _running(self) -> str:
        counts = (f"{arm} {won}/{n}" for arm, (won, n) in self.tally().items())
        return ", ".join(counts) or "starting simulators"

    def _eta(self) -> str:
        done = len(self.records) - self._n_before
        left = (time.monotonic() - self._started) / done * (self._n_total - len(self.records))
        return f"{left / 60:.1f} min left"
