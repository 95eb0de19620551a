"""What follows a run as its episodes end: progress, videos, trackers, and the end of an arm."""

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from msgspec import to_builtins
from rich.console import Console

from einsort_vla.results.episode import EpisodeRecord
from einsort_vla.results.pairs import match
from einsort_vla.results.run import VIDEOS, read_run
from einsort_vla.results.sequential import decided
from eval.closed_loop.recording import import_tracker
from eval.closed_loop.request import ClosedLoopRequest
from eval.closed_loop.video import FRAMES, film_scene
from eval.run.arms import Arm
from eval.run.progress import counting

PROJECT = "einsort-vla"  # of the trackers


class Tracker(Protocol):
    """What wandb and trackio have in common."""

    def log(self, metrics: dict[str, Any]) -> None: ...

    def finish(self) -> None: ...


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
        self._records, self._console = list(finished), console
        missing = ["episode"] * (len(request.scenes) * len(arms) - len(finished))
        self._progress = counting(
            "episodes", missing, console, len(finished), "starting simulators"
        )
        self._videos = output / VIDEOS if request.settings.video else None
        self._tracker = open_tracker(request.settings.track, output)
        self._decided: list[str] = []
        if request.settings.stop_early:
            self._decide(list(self._arms))

    def __enter__(self) -> Self:
        self._step = self._progress.__enter__()
        return self

    def __exit__(self, *failure: Any) -> None:
        self._progress.__exit__(*failure)
        if self._tracker:
            self._tracker.finish()
        if self._videos:
            shutil.rmtree(self._videos / FRAMES, ignore_errors=True)

    def add(self, record: EpisodeRecord) -> None:
        """Take one finished episode."""
        self._records.append(record)
        if record.error:
            self._console.print(f"{record.key}: {record.error}")
        n = Counter(each.arm for each in self._records)
        won = Counter(each.arm for each in self._records if each.is_success)
        self._step("episode", ", ".join(f"{arm} {won[arm]}/{n[arm]}" for arm in n))
        if self._tracker:
            self._tracker.log({f"success rate/{arm}": won[arm] / n[arm] for arm in n})
        is_dense = self._arms[record.arm].reference is None
        concerned = self._compared_with(record.arm) if is_dense else [record.arm]
        if self._videos and record.outcome != "error":
            # Control steps between two looks of an episode, and so between two frames.
            n_action_steps = max(1.0, record.steps / max(1, len(record.latency_ms)))
            fps = self._request.protocol.control_freq_hz / n_action_steps
            for arm in concerned:
                reference = self._arms[arm].reference or ""
                film_scene(self._videos, record.scene, reference, arm, fps)
        if self._request.settings.stop_early:
            self._decide(concerned)

    def decided(self) -> list[str]:
        """Arms that an always-valid bound has decided on, and references of such arms alone."""
        done = set(self._decided)
        references = [
            name
            for name in self._arms
            if (others := self._compared_with(name)) and done.issuperset(others)
        ]
        return [*self._decided, *references]

    def _compared_with(self, reference: str) -> list[str]:
        return [arm.name for arm in self._arms.values() if arm.reference == reference]

    def _decide(self, names: Sequence[str]) -> None:
        for name in names:
            reference = self._arms[name].reference
            if reference is None or name in self._decided:
                continue
            pairs = match(self._records, reference, name)
            margin = self._request.settings.margin
            if verdict := decided([pair.difference for pair in pairs], margin):
                self._decided.append(name)
                self._console.print(
                    f"{name}: {verdict} after {len(pairs)} pairs; no further episodes of it.",
                )


def open_tracker(name: str | None, output: Path) -> Tracker | None:
    """Begin a run there, with this run's settings; None where none is asked for.

    Raises:
        MissingDependency: it is not installed.
    """
    if name is None:
        return None
    tracker = import_tracker(name)
    return tracker.init(project=PROJECT, name=output.name, config=to_builtins(read_run(output)))
