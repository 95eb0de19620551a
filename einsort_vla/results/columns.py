"""The columns that tables of arms have; a new column is added here and nowhere else."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from einsort_vla.results import wording
from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.latency import Timing
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.motion import METRICS, Metric
from einsort_vla.results.noninferiority import compare
from einsort_vla.results.report import ClosedLoop, Percentiles, Report
from einsort_vla.results.table import Cell, Column, Table

NameOf = Callable[[ArmFacts], str]


def report_table(report: Report) -> Table:
    """All that is known of each arm of one run."""
    columns = [*size_columns(report.arms), *result_columns(report)]
    return Table("Arms", {arm.name: arm.codec for arm in report.arms}, tuple(columns))


def result_columns(
    report: Report, note: str = "", rows: Mapping[str, str] | None = None
) -> Iterator[Column]:
    """What a run found.

    Args:
        report: of the run.
        note: put before the note of each column, such as the run's name.
        rows: name of the row of each arm that is shown; None for each arm's own name.
    """
    found = [column for measure in report.measures for column in measure_columns(measure)]
    if report.closed_loop:
        found += _closed_loop_columns(report.closed_loop)
    for column in found:
        cells = column.cells if rows is None else {
            rows[arm]: cell for arm, cell in column.cells.items() if arm in rows
        }  # fmt: skip
        yield Column(column.title, ", ".join(filter(None, (note, column.note))), cells)


def size_columns(arms: Sequence[ArmFacts], name_of: NameOf = lambda arm: arm.name) -> list[Column]:
    """Bits a weight and size of the weight files; of several arms in one row the first counts."""
    dense = next((arm.weight_bytes for arm in arms if not arm.codec and arm.weight_bytes), None)
    arms = list(reversed(arms))
    return [
        Column("bits a weight", "rate achieved", {name_of(arm): _bits(arm) for arm in arms}),
        Column("weight file", "share of dense", {name_of(arm): _bytes(arm, dense) for arm in arms}),
    ]


def _bits(arm: ArmFacts) -> Cell:
    if arm.rate_achieved is None:
        return Cell(f"{arm.bits_per_weight:g}")
    return Cell(wording.number(arm.bits_per_weight), (wording.number(arm.rate_achieved, 4),))


def _bytes(arm: ArmFacts, dense: int | None) -> Cell:
    n_bytes = arm.weight_bytes
    share = (wording.percent(n_bytes / dense, 0),) if arm.codec and n_bytes and dense else ()
    return Cell(wording.megabytes(n_bytes), share)


def measure_columns(measure: Measure) -> list[Column]:
    """The value of each arm; and how compressed ones compare with dense, where any does."""
    names = {**measure.arms, **measure.errors}
    own = Column(
        measure.name,
        f"95 % interval, {measure.better} is better",
        {arm: value_cell(measure, arm) for arm in names},
    )
    if not measure.paired:
        return [own]
    margin = f", margin {100 * measure.margin:g} points" if measure.margin is not None else ""
    changes = {arm: change_cell(measure, pair) for arm, pair in measure.paired.items()}
    return [own, Column("against dense", f"{measure.paired_as}, 95 % interval{margin}", changes)]


def value_cell(measure: Measure, arm: str) -> Cell:
    """A number with its interval and what it was measured on."""
    own = measure.arms.get(arm)
    errors = measure.errors.get(arm, 0)
    told = (wording.n_of(errors, "errors"),) if errors else ()
    if own is None or not own.n:
        return Cell(notes=told)
    counted = ", ".join((wording.n_of(own.n, measure.counted), *told))
    interval = wording.measured_range(own.low, own.high, measure.unit)
    return Cell(wording.measured(own.value, measure.unit), (interval, counted))


def change_cell(measure: Measure, pair: Estimate) -> Cell:
    """A paired change with its interval, and the verdict where there is a margin."""
    state = _state(measure, pair)
    verdict = (state,) if measure.margin is not None and state else ()
    interval = wording.change_range(measure, pair)
    return Cell(wording.change(measure, pair), (interval, *verdict), state)


def _state(measure: Measure, pair: Estimate) -> str:
    if pair.interval is None:
        return ""
    if measure.margin is not None:
        return compare(pair.interval, measure.margin)
    low, high = pair.interval
    nothing = 1.0 if measure.paired_as == "ratio" else 0.0
    if low <= nothing <= high:
        return ""
    return "better" if (low > nothing) == (measure.better == "higher") else "worse"


def _closed_loop_columns(loop: ClosedLoop) -> Iterator[Column]:
    for metric in (metric for metric in METRICS.values() if metric.is_headline):
        cells = {
            arm: _motion(metric, pair.motion[metric.key])
            for arm, pair in loop.pairs.items()
            if metric.key in pair.motion
        }
        if cells:
            yield Column(metric.title.lower(), f"{metric.compared} to dense, 95 % interval", cells)
    times = {name: _latency(arm.latency_ms) for name, arm in loop.arms.items() if arm.latency_ms}
    if times:
        yield Column("a chunk, ms", "median; p95 / p99", times)


def _motion(metric: Metric, change: Estimate) -> Cell:
    kind, digits = metric.compared, metric.digits
    interval = wording.changed_range(change.interval, kind, digits)
    return Cell(wording.changed(change.value, kind, digits), (interval,))


def _latency(ms: Percentiles) -> Cell:
    return Cell(
        wording.number(ms.p50, 1), (f"{wording.number(ms.p95, 1)} / {wording.number(ms.p99, 1)}",)
    )


def device_columns(timings: Sequence[Timing]) -> Iterator[Column]:
    """Milliseconds of a chunk on each device that was timed by itself.

    Two timings of one arm on one device are not averaged: each has its column.
    """
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
