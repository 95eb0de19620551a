"""All results of one checkpoint, or of one policy at several rates, joined into one report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, Literal

from einsort_vla.errors import UsageError
from einsort_vla.results import wording
from einsort_vla.results.arms import DENSE, Code, undelayed
from einsort_vla.results.columns import Cell, Column, Table, renamed, result_columns, size_columns
from einsort_vla.results.report import Percentiles, Report
from einsort_vla.results.run import CLOSED_LOOP
from einsort_vla.results.sources import Bench, Model, Source, Sources
from einsort_vla.runtime import WHOLE_CHUNK

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
    others = {measure.name: measure.arms for measure in b.measures}
    for measure in a.measures:
        for arm, estimate in measure.arms.items():
            found = others.get(measure.name, {}).get(arm, estimate)
            if found != estimate:
                first, second = (f"{each.value:.6g} (n = {each.n})" for each in (estimate, found))
                raise UsageError(
                    f"{one.name} and {other.name} disagree: {measure.name} of arm {arm!r} is "
                    f"{first} in one, {second} in the other. Leave one of them out."
                )


@dataclass(frozen=True)
class Group:
    """All results of one dense model."""

    model: Model
    is_policy: bool
    table: Table


def groups_of(sources: Sources) -> list[Group]:
    """Every arm of every run at a glance: a table for each model, that of the policy first."""
    by_model: dict[str, list[Source]] = {}
    for run in sources.runs:
        by_model.setdefault(run.model.sha256 or f"{run.model.name} in {run.name}", []).append(run)
    return [_group(runs, sources.receipts) for runs in by_model.values()]


def _group(runs: Sequence[Source], receipts: Sequence[Bench]) -> Group:
    loops = [run for run in runs if run.run.kind == CLOSED_LOOP]
    arms = [arm for run in runs for arm in run.arms]
    columns = size_columns(arms, lambda arm: str(arm.code)) if arms else []
    for run in runs:
        if run.report:
            rows = {arm.name: str(arm.code) for arm in undelayed(run.arms)}
            columns += renamed(result_columns(run.report), _note_of(run), rows)
    columns += _device_columns([_timing(each, loops) for each in receipts])
    rows = {str(code): code.codec for code in codes_of(runs)}
    title = f"Every arm of {runs[0].model.name}"
    return Group(runs[0].model, bool(loops), Table(title, rows, tuple(columns)))


def codes_of(runs: Sequence[Source]) -> list[Code]:
    """All arms: the dense one, then each codec by rate."""
    found = dict.fromkeys(arm.code for run in runs for arm in run.arms)
    codecs = list(dict.fromkeys(code.codec for code in found))
    return sorted(found, key=lambda code: (code != DENSE, codecs.index(code.codec), code.rate))


def _note_of(run: Source) -> str:
    """What tells its columns from those of other runs."""
    design = run.run.design
    shortest = min((arm.delay_ms for arm in run.arms), default=0)
    parts = [
        design.suites if design else run.title.lower(),
        f"{shortest:g} ms of delay" if shortest else "",
        "" if run.is_complete else "INCOMPLETE",
    ]
    return ", ".join(filter(None, parts))


def _device_columns(timings: Sequence["Timing"]) -> Iterator[Column]:
    """Two timings of one arm on one device are not averaged: each has its column."""
    columns: dict[tuple[str, int], dict[str, Cell]] = {}
    for timing in timings:
        if timing.code is None or timing.ms is None:
            continue
        row, repeat = str(timing.code), 0
        while row in columns.setdefault((timing.where, repeat), {}):
            repeat += 1
        columns[timing.where, repeat][row] = Cell(wording.number(timing.ms.p50, 1))
    for (where, _), cells in columns.items():
        yield Column("a chunk, ms", f"median, {where}", cells)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a chunk on one machine."""

    where: str
    code: Code | None  # None where it cannot be told what was timed
    source: str  # the run or the receipt
    ms: Percentiles | None
    parts: Mapping[str, float]  # median of each part that was timed by itself
    process_bytes: int | None = None
    power_w: float | None = None


def timings_of(loops: Sequence[Source], receipts: Sequence[Bench]) -> Iterator[Timing]:
    """Of every arm that was run, at the shortest delay of its run, then of every receipt."""
    for loop in loops:
        found = loop.report and loop.report.closed_loop
        for arm in undelayed(loop.arms):
            if found and not arm.shares_episodes:
                where, ms = f"closed loop, {loop.run.machine}", found.arms[arm.name].latency_ms
                yield Timing(where, arm.code, loop.name, ms, {})
    for receipt in receipts:
        yield _timing(receipt, loops)


def _timing(bench: Bench, loops: Sequence[Source]) -> Timing:
    """What was timed on a device, and of which arm of these runs it is, by its weights."""
    latency, weights = bench.receipt.latency_ms, bench.source.weights_sha256
    timed = (arm.code for loop in loops for arm in loop.arms
             if weights and loop.weights_of(arm.code) == weights)  # fmt: skip
    return Timing(
        bench.device,
        next(timed, None),
        bench.name,
        latency.get(WHOLE_CHUNK),
        parts={part: ms.p50 for part, ms in latency.items() if part != WHOLE_CHUNK},
        process_bytes=bench.receipt.process_bytes,
        power_w=bench.receipt.power_w,
    )


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
        complete=not sources.unfinished,
        arms={
            str(code): JoinedArm(
                *code, runs=tuple(run.name for run in sources.runs if code in run.codes)
            )
            for code in codes_of(sources.runs)
        },
        runs=tuple(JoinedRun(run.name, run.model, run.report) for run in sources.runs),
        latency=sources.receipts,
        unused=sources.unused,
    )
