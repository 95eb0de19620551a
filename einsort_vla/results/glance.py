"""Every arm of every run at a glance: one table, its columns under the model they are of."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from einsort_vla.results import wording
from einsort_vla.results.latency import timings_of
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.motion import TIMES
from einsort_vla.results.sources import (
    DENSE,
    ClosedLoop,
    Code,
    Model,
    Receipt,
    Sources,
    TextRun,
    code_of,
)
from einsort_vla.results.verdict import interval_of


@dataclass(frozen=True)
class Cell:
    """A number of one arm, its interval, and its change from the dense arm."""

    text: str = wording.DASH
    interval: str = ""
    change: str = ""
    change_interval: str = ""
    state: str = ""  # a verdict; "worse" or "better" where an interval excludes no change

    @property
    def changed(self) -> str:
        """Change and interval in one: "-2.5 points (-9.9 to +3.6)"; empty where there is none."""
        return f"{self.change} ({self.change_interval})" if self.change else ""


@dataclass(frozen=True)
class Column:
    """One number, by arm."""

    title: str
    note: str
    cells: Mapping[Code, Cell]


@dataclass(frozen=True)
class Group:
    """The columns that are of one dense model."""

    model: Model
    is_policy: bool
    columns: tuple[Column, ...]


def codes_of(groups: Sequence[Group]) -> list[Code]:
    """All arms: the dense one, then each codec by rate."""
    found = {code: None for group in groups for column in group.columns for code in column.cells}
    codecs = list(dict.fromkeys(codec for codec, _ in found))
    return sorted(found, key=lambda code: (code != DENSE, codecs.index(code[0]), code[1]))


def groups_of(sources: Sources) -> list[Group]:
    """Columns under each model, that of the policy first."""
    by_model: dict[str, list[ClosedLoop | TextRun]] = {}
    for run in sources.runs:
        by_model.setdefault(run.model.sha256 or f"{run.model.name} in {run.name}", []).append(run)
    return [_group(runs, sources.receipts) for runs in by_model.values()]


def _group(runs: Sequence[ClosedLoop | TextRun], receipts: Sequence[Receipt]) -> Group:
    loops = [run for run in runs if isinstance(run, ClosedLoop)]
    texts = [run for run in runs if isinstance(run, TextRun) and run.findings]
    columns = [*_size_columns(runs), *map(_loop_column, loops)]
    columns += [column for text in texts for column in _text_columns(text)]
    columns += _latency_columns(loops, receipts)
    return Group(runs[0].model, bool(loops), tuple(columns))


def facts_of(run: ClosedLoop | TextRun) -> Iterator[tuple[Code, float, int | None]]:
    """Code, bits a weight and bytes of the weight file of each arm; bytes None where unknown."""
    arms = run.arms
    for arm in arms.values():
        size = arm["compression"]
        if size is None:
            sizes = [a["compression"]["bytes"] for a in arms.values() if a["compression"]
                     and a["compression"].get("bytes")]  # fmt: skip
            n_bytes = arm.get("weight_bytes") or (sizes[0]["dense"] if sizes else None)
            yield code_of(arm), 16.0, n_bytes
        else:
            n_bytes = arm.get("weight_bytes") or (size.get("bytes") or {}).get("compressed")
            yield code_of(arm), size["bits_per_weight"], n_bytes


def _size_columns(runs: Sequence[ClosedLoop | TextRun]) -> list[Column]:
    cells = {
        code: Cell(wording.number(bits), wording.megabytes(n_bytes))
        for run in reversed(runs)  # the first run's, where several have an arm
        for code, bits, n_bytes in facts_of(run)
    }
    return [Column("bits a weight", "weight file", cells)] if cells else []


def _loop_column(loop: ClosedLoop) -> Column:
    report = loop.report
    cells = {
        code_of(arm): _loop_cell(report, arm, report["paired"].get(name))
        for name, arm in loop.undelayed.items()
    }
    shortest = next((arm["delay_ms"] for arm in loop.undelayed.values()), 0)
    delay = f" with {shortest:g} ms of delay" if shortest else ""
    gap = "" if report["complete"] else ", INCOMPLETE"
    return Column("success", f"{suites_of(report)}{delay}{gap}", cells)


def suites_of(report: Mapping[str, Any]) -> str:
    """The suites of a closed-loop run in words."""
    return ", ".join(dict.fromkeys(task["suite"] for task in report["per_task"]))


def _loop_cell(report: dict[str, Any], arm: Mapping[str, Any], pair: Any) -> Cell:
    interval = f"{wording.count(dict(arm))}, {wording.percent_range(arm['wilson95'])}"
    text = wording.percent(arm["success_rate"])
    if not pair or pair["difference"] is None:
        return Cell(text, interval)
    bounds = wording.points_range(interval_of(report, pair))
    change = f"{wording.points(pair['difference'])} points"
    return Cell(text, interval, change, bounds, pair["noninferiority"]["verdict"])


def _text_columns(run: TextRun) -> Iterator[Column]:
    assert run.findings
    gap = "" if run.findings.complete else ", INCOMPLETE"
    for measure in run.findings.measures:
        cells = {
            code_of(run.findings.arms[arm]): measure_cell(measure, arm) for arm in measure.arms
        }
        yield Column(measure.name, f"{run.title.lower()}, {measure.better} is better{gap}", cells)


def measure_cell(measure: Measure, arm: str) -> Cell:
    """What a measure says of one arm."""
    own, pair = measure.arms.get(arm), measure.paired.get(arm)
    if own is None or not own.n:
        return Cell()
    text = wording.measured(own.value, measure.unit)
    interval = wording.measured_range(own.low, own.high, measure.unit)
    if pair is None:
        return Cell(text, interval)
    return Cell(text, interval, *_change(measure, pair), _direction(measure, pair))


def _change(measure: Measure, pair: Estimate) -> tuple[str, str]:
    """A paired estimate and its interval in words: "x 1.03" and "1.02 to 1.05"."""
    bounds = None if pair.low is None or pair.high is None else (pair.low, pair.high)
    if measure.unit == "%" and measure.paired_as == "difference":
        return f"{wording.points(pair.value)} points", wording.points_range(bounds)
    is_ratio = measure.paired_as == "ratio"
    number = wording.number if is_ratio else wording.signed
    unit = "" if is_ratio else f" {measure.unit}".rstrip()
    interval = " to ".join(number(bound, 3) for bound in bounds or ()) or wording.DASH
    return f"{TIMES} " * is_ratio + number(pair.value, 3) + unit, interval


def _direction(measure: Measure, pair: Estimate) -> str:
    if pair.low is None or pair.high is None:
        return ""
    nothing = 1.0 if measure.paired_as == "ratio" else 0.0
    if pair.low <= nothing <= pair.high:
        return ""
    return "better" if (pair.low > nothing) == (measure.better == "higher") else "worse"


def _latency_columns(loops: Sequence[ClosedLoop], receipts: Sequence[Receipt]) -> Iterator[Column]:
    """Milliseconds of a chunk of actions: in closed loop, and on each device that was timed.

    Of several closed-loop runs the first; the section on latency has them all.
    """
    columns: dict[tuple[str, int], dict[Code, Cell]] = {}
    for timing in timings_of(loops[:1], receipts):
        if timing.code is None:
            continue
        repeat = 0  # of one arm on one device; two are not averaged
        while timing.code in columns.setdefault((timing.where, repeat), {}):
            repeat += 1
        columns[timing.where, repeat][timing.code] = Cell(wording.number(timing.p50, 1))
    for (where, _), cells in columns.items():
        yield Column("a chunk, ms", f"p50, {where}", cells)
