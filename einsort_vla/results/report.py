"""report.json: all that is printed or drawn of a run, whatever it measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from msgspec.structs import replace

from einsort_vla.errors import CheckpointError, cut, unknown_name
from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.motion import Motion
from einsort_vla.results.noninferiority import NonInferiority
from einsort_vla.results.record import Figure, Record, read_record, write_record
from einsort_vla.results.run import REPORT, Run
from einsort_vla.results.statistics import Interval, PairCounts

KINDS = {"closed_loop": "Robot in closed loop", "textvqa": "Text in pictures",
         "language": "Language"}  # fmt: skip


class Tally(Record, frozen=True):
    """Finished episodes; one that ended in an error is neither a success nor a failure."""

    episodes: int
    successes: int
    errors: int


class Percentiles(Record, frozen=True):
    """Of milliseconds that a chunk of actions took."""

    p50: Figure
    p95: Figure
    p99: Figure
    n: int


class ArmEpisodes(Record, frozen=True, kw_only=True):
    """The episodes of one arm."""

    planned: int
    tally: Tally
    latency_ms: Percentiles | None  # measured where the policy is computed
    median_episode_s: float | None  # of wall time
    coded_layers: Mapping[str, int]  # by the backend that computed them
    memory_bytes: int | None  # that the policy's runtime holds, the most of all episodes
    motion: Motion  # medians
    per_suite: Mapping[str, Tally]


class PairedEpisodes(Record, frozen=True, kw_only=True):
    """A compressed arm beside its dense arm, in scenes that both finished."""

    reference: str
    counts: PairCounts
    newcombe95: Interval | None
    tango95: Interval | None
    clustered95: Interval | None  # with whole tasks resampled
    always_valid95: Interval | None
    mcnemar_p: float | None
    identical_actions: int  # pairs in which both arms acted alike to the last bit
    noninferiority: NonInferiority
    motion: Mapping[str, Estimate]  # ratio or difference, as the metric says, by its key
    divergence: Estimate | None  # of actions at what the dense arm saw


class TaskResult(Record, frozen=True, kw_only=True):
    """One task, by arm."""

    suite: str
    task_id: int
    language: str
    arms: Mapping[str, Tally]


class ClosedLoop(Record, frozen=True, kw_only=True):
    """What a run with episodes found beside its success."""

    arms: Mapping[str, ArmEpisodes]
    pairs: Mapping[str, PairedEpisodes]  # by compressed arm
    tasks: tuple[TaskResult, ...]


class Report(Record, frozen=True, kw_only=True):
    """What a run found."""

    SCHEMA: ClassVar[int] = 4

    kind: str  # one of `KINDS`
    verdict: str  # in sentences, with the numbers
    complete: bool
    arms: tuple[ArmFacts, ...]  # the dense one first
    measures: tuple[Measure, ...]
    protocol: Mapping[str, Any]  # all that decides the numbers
    run: Run
    notes: tuple[str, ...] = ()  # what a reader must know not to misread them
    closed_loop: ClosedLoop | None = None

    @property
    def title(self) -> str:
        return KINDS[self.kind]

    @property
    def compressed(self) -> dict[str, ArmFacts]:
        """Compressed arms by name."""
        return {arm.name: arm for arm in self.arms if arm.codec}

    @property
    def n_episodes(self) -> int:
        """Finished ones of all arms that were run."""
        ran = [arm.name for arm in self.arms if not arm.shares_episodes]
        loop = self.closed_loop
        return sum(loop.arms[name].tally.episodes for name in ran) if loop else 0

    @property
    def shared_verdict(self) -> str:
        """That of all arms of a closed-loop run; empty where they differ."""
        pairs = self.closed_loop.pairs if self.closed_loop else {}
        states = {pair.noninferiority.verdict for pair in pairs.values()}
        return states.pop() if len(states) == 1 else ""

    def only(self, name: str) -> "Report":
        """The report of one compressed arm and its dense arm; the verdict stays that of all.

        Raises:
            UsageError: the run has no such compressed arm.
        """
        if name not in self.compressed:
            raise unknown_name("compressed arm", name, self.compressed)
        names = (self.compressed[name].reference or "", name)
        loop = self.closed_loop
        if loop:
            kept = {arm: found for arm, found in loop.arms.items() if arm in names}
            loop = replace(loop, arms=kept, pairs={name: loop.pairs[name]})
        return replace(
            self,
            arms=tuple(arm for arm in self.arms if arm.name in names),
            measures=tuple(measure.only(names) for measure in self.measures),
            closed_loop=loop,
        )


def read_report(folder: Path) -> Report:
    """Read report.json.

    Raises:
        CheckpointError: there is none, or it is damaged or of another kind or schema.
    """
    report = read_record(Report, folder / REPORT)
    check_kind(report.kind, folder)
    return report


def check_kind(kind: str, folder: Path) -> None:
    """Refuse the run in a folder if it is not of one of `KINDS`.

    Raises:
        CheckpointError: it is not.
    """
    if kind not in KINDS:
        raise CheckpointError(
            f"{folder} is a run of an unknown kind, {cut(kind)!r}; known are {', '.join(KINDS)}. "
            "Move it out of the folder."
        )


def write_report(report: Report, folder: Path) -> None:
    """Write report.json, whole or not at all."""
    write_record(folder / REPORT, report)
