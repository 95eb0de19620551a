"""What follows a run as its episodes end: progress, videos, trackers, and the end of an arm."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from rich.console import Console

from einsort_vla.results.episode import EpisodeRecord
from einsort_vla.results.pairs import match
from einsort_vla.results.run import VIDEOS
from einsort_vla.results.sequential import decided
from eval.closed_loop.progress import EpisodeProgress
from eval.closed_loop.request import ClosedLoopRequest
from eval.closed_loop.tracking import Tracker, open_tracker
from eval.closed_loop.video import FRAMES, film_scene
from eval.run.arms import Arm


class Followers:
    """Told of each finished episode; a context manager around the run."""

    def __init__(
        self,
        request: ClosedLoopRequest,
        arms: Sequence[Arm],
        finished: Sequence[EpisodeRecord],
        output: Path,
        console: Console,
    ) -> None:
        self._request, self._arms = request, {arm.name: arm for arm in arms}
        self._console = console
        n_total = len(request.scenes) * len(arms)
        self._progress = EpisodeProgress(n_total, finished, console)
        self._videos = output / VIDEOS if request.settings.video else None
        self._tracker: Tracker | None = open_tracker(request.settings.track, output)
        self._decided: list[str] = []
        if request.settings.stop_early:
            self._decide(self._arms)

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._progress.__exit__(*failure)
        if self._tracker:
            self._tracker.finish()
        if self._videos:
            shutil.rmtree(self._videos / FRAMES, ignore_errors=True)

    def add(self, record: EpisodeRecord) -> None:
        """Take one finished episode."""
        self._progress.add(record)
        if self._tracker:
            self._tracker.log(self._running())
        if self._videos and record.outcome != "error":
            self._film(record)
        if self._request.settings.stop_early:
            reference = self._arms[record.arm].reference
            self._decide([record.arm] if reference else self._compared_with(record.arm))

    def decided(self) -> Sequence[str]:
        """Arms that an always-valid bound has decided on, and references of such arms alone."""
        done = set(self._decided)
        references = [
            name
            for name in self._arms
            if (others := self._compared_with(name)) and done.issuperset(others)
        ]
        return [*self._decided, *references]

    def _running(self) -> dict[str, float]:
        tally = self._progress.tally()
        return {f"success rate/{arm}": won / n for arm, (won, n) in tally.items()}

    def _film(self, record: EpisodeRecord) -> None:
        assert self._videos is not None
        reference = self._arms[record.arm].reference
        for arm in [record.arm] if reference else self._compared_with(record.arm):
            fps = self._request.protocol.control_freq_hz / self._n_action_steps(record)
            film_scene(self._videos, record.scene, self._arms[arm].reference or "", arm, fps)

    def _n_action_steps(self, record: EpisodeRecord) -> float:
        """Control steps between two looks of an episode, and so between two frames."""
        return max(1.0, record.steps / max(1, len(record.latency_ms)))

    def _compared_with(self, reference: str) -> list[str]:
        return [arm.name for arm in self._arms.values() if arm.reference == reference]

    def _decide(self, names: Sequence[str] | dict[str, Arm]) -> None:
        for name in names:
            reference = self._arms[name].reference
            if reference is None or name in self._decided:
                continue
            pairs = match(self._progress.records, reference, name)
            margin = self._request.settings.margin
            if verdict := decided([pair.difference for pair in pairs], margin):
                self._decided.append(name)
                self._console.print(
                    f"{name}: {verdict} after {len(pairs)} pairs; no further episodes of it.",
                    highlight=False,
                )
