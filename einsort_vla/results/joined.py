"""All results of one checkpoint, or of one policy at several rates, joined into one report."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, Literal

from einsort_vla.errors import UsageError
from einsort_vla.results.glance import codes_of
from einsort_vla.results.measures import Estimate
from einsort_vla.results.report import Report
from einsort_vla.results.sources import Bench, Model, Source, Sources

SETTINGS = ("backend", "runtime", "batch", "calibrate")  # that decide how an episode ends


def check_joinable(sources: Sources) -> None:
    """Refuse what cannot stand on one page.

    Raises:
        UsageError: closed-loop runs are of several policies, or two runs of one model and arm
            disagree on the same episode or the same number.
    """
    for one, other in combinations(sources.loops, 2):
        if not one.model.is_same(other.model):
            raise UsageError(
                f"{one.name} is of the policy {one.model}, {other.name} of {other.model}. A report "
                "is of one policy; put the runs of each in a folder of their own."
            )
        _check_loops(one, other)
    for one, other in combinations(sources.texts, 2):
        _check_texts(one, other)


def _check_loops(one: Source, other: Source) -> None:
    """Episodes that both have ended alike, where all that is known to decide them is the same."""
    if _setting(one) != _setting(other):
        return
    known = {record.key: record for record in one.records if record.outcome != "error"}
    for record in other.records:
        same = known.get(record.key)
        if same and record.outcome not in ("error", same.outcome):
            scene = record.scene
            raise UsageError(
                f"{one.name} and {other.name} disagree: {scene.suite} task {scene.task_id} episode "
                f"{scene.episode} of arm {record.arm!r} is a {same.outcome} in one, a "
                f"{record.outcome} in the other. Leave one of them out."
            )


def _setting(loop: Source) -> list[Any]:
    run, design = loop.run, loop.run.design
    assert design
    return [design.protocol, design.scenes, run.inputs_sha256, *map(run.config.get, SETTINGS)]


def _check_texts(one: Source, other: Source) -> None:
    """Numbers of one model, arm and protocol are the same in both, once both are complete."""
    a, b = one.report, other.report
    if not (a and b and a.complete and b.complete and one.model.is_same(other.model)):
        return
    if (a.kind, a.protocol) != (b.kind, b.protocol):
        return
    measures = {measure.name: measure for measure in b.measures}
    for measure in a.measures:
        others = measures[measure.name].arms if measure.name in measures else {}
        for arm, estimate in measure.arms.items():
            if arm in others and others[arm] != estimate:
                raise UsageError(
                    f"{one.name} and {other.name} disagree: {measure.name} of arm {arm!r} is "
                    f"{_told(estimate)} in one, {_told(others[arm])} in the other. "
                    "Leave one of them out."
                )


def _told(estimate: Estimate) -> str:
    return f"{estimate.value:.6g} (n = {estimate.n})"


@dataclass(frozen=True)
class Finding:
    """What one run found, in words."""

    title: str
    name: str  # of its folder
    model: Model
    verdict: str
    state: str  # a verdict that all arms of a closed-loop run share
    complete: bool
    notes: tuple[str, ...]


def verdicts_of(sources: Sources) -> list[Finding]:
    """One a run that has found something."""
    return [
        Finding(run.title, run.name, run.model, report.verdict, state_of(report), report.complete,
                report.notes)
        for run in sources.runs
        if (report := run.report)
    ]  # fmt: skip


def state_of(report: Report) -> str:
    """The verdict that all arms of a closed-loop run share; empty where they differ."""
    pairs = report.closed_loop.pairs if report.closed_loop else {}
    states = {pair.noninferiority.verdict for pair in pairs.values()}
    return states.pop() if len(states) == 1 else ""


def subject_of(sources: Sources) -> str:
    """The name of the policy, or without one those of the models."""
    runs = sources.loops or sources.texts
    return ", ".join(dict.fromkeys(run.model.name for run in runs)) or "Latency"


def unfinished(sources: Sources) -> list[str]:
    """Names of runs that have work left."""
    return [run.name for run in sources.runs if not run.is_complete]


@dataclass(frozen=True)
class JoinedArm:
    """One arm, and the runs that have it; its numbers are with the runs."""

    codec: str | None
    rate_requested: float
    runs: tuple[str, ...]


@dataclass(frozen=True)
class JoinedRun:
    """One run; its report is that of its own folder."""

    folder: str
    model: Model
    report: Report | None


@dataclass(frozen=True, kw_only=True)
class JoinedReport:
    """report.json of a folder of runs."""

    SCHEMA: ClassVar[int] = 2

    kind: Literal["joined"] = "joined"
    complete: bool
    arms: Mapping[str, JoinedArm]
    runs: tuple[JoinedRun, ...]
    latency: tuple[Bench, ...]
    unused: tuple[str, ...]


def joined_report(sources: Sources) -> JoinedReport:
    """Each run's own report, and which arms there are."""
    return JoinedReport(
        complete=not unfinished(sources),
        arms={
            str(code): JoinedArm(
                code.codec,
                code.rate,
                tuple(run.name for run in sources.runs if code in run.codes),
            )
            for code in codes_of(sources.runs)
        },
        runs=tuple(JoinedRun(run.name, run.model, run.report) for run in sources.runs),
        latency=sources.receipts,
        unused=sources.unused,
    )
