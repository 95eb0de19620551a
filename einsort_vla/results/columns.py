"""Tables of arms before any renderer: the terminal, Markdown and the pages show the same columns.

A new column is added here and nowhere else.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from einsort_vla.results import wording
from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.changes import motion_changes
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.noninferiority import compare
from einsort_vla.results.report import ClosedLoop, Percentiles, Report


@dataclass(frozen=True)
class Cell:
    """What is known of one arm in one column."""

    text: str = wording.DASH
    notes: tuple[str, ...] = ()  # lines below, smaller
    state: str = ""  # a verdict; "worse" or "better" where the interval is clear of no change

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.text, *self.notes)


@dataclass(frozen=True)
class Column:
    """One number, by row."""

    title: str
    note: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """Arms in rows."""

    title: str
    rows: Mapping[str, str | None]  # name to codec, None of the dense arm
    columns: tuple[Column, ...]

    def cells(self, row: str) -> list[Cell]:
        """Of one row, a dash where nothing is known."""
        return [column.cells.get(row, Cell()) for column in self.columns]


def markdown(table: Table) -> str:
    """The table as Markdown; the lines of a cell are parted by <br>."""
    heads = [(column.title, column.note) for column in table.columns]
    rows = [[(name,), *(cell.lines for cell in table.cells(name))] for name in table.rows]
    return markdown_rows([[("arm",), *heads], *rows])


def markdown_rows(rows: Sequence[Sequence[tuple[str, ...]]]) -> str:
    """Rows of cells, each with its lines; the first row has the titles."""
    texts = [["<br>".join(map(wording.escaped, filter(None, cell))) for cell in r] for r in rows]
    texts.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in texts)


def report_table(report: Report) -> Table:
    """All that is known of each arm of one run."""
    columns = [*size_columns(report.arms), *result_columns(report)]
    return Table("Arms", {arm.name: arm.codec for arm in report.arms}, tuple(columns))


def size_columns(
    arms: Sequence[ArmFacts], name_of: Callable[[ArmFacts], str] = lambda arm: arm.name
) -> list[Column]:
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


def result_columns(report: Report) -> Iterator[Column]:
    """What a run found."""
    for measure in report.measures:
        yield from _measure_columns(measure)
    if report.closed_loop:
        yield from _closed_loop_columns(report.closed_loop)


def _measure_columns(measure: Measure) -> Iterator[Column]:
    names = {**measure.arms, **measure.errors}
    values = {arm: value_cell(measure, arm) for arm in names}
    yield Column(measure.name, f"95 % interval, {measure.better} is better", values)
    if measure.paired:
        margin = f", margin {100 * measure.margin:g} points" if measure.margin is not None else ""
        changes = {arm: change_cell(measure, pair) for arm, pair in measure.paired.items()}
        yield Column("against dense", f"{measure.paired_as}, 95 % interval{margin}", changes)


def value_cell(measure: Measure, arm: str) -> Cell:
    """A number with its interval and what it was measured on."""
    own = measure.arms.get(arm)
    errors = measure.errors.get(arm, 0)
    told = (wording.n_of(errors, "errors"),) if errors else ()
    if own is None or not own.n:
        return Cell(notes=told)
    counted = ", ".join((wording.n_of(own.n, measure.counted), *told))
    text, interval = wording.estimated(own, measure.unit)
    return Cell(text, (interval, counted))


def change_cell(measure: Measure, pair: Estimate) -> Cell:
    """A paired change with its interval, and the verdict where there is a margin."""
    state = _state(measure, pair)
    text, interval = wording.change(measure, pair)
    verdict = (state,) if measure.margin is not None and state else ()
    return Cell(text, (interval, *verdict), state)


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
    for metric, changes in motion_changes(loop):
        cells = {arm: Cell(each.text, (each.interval,)) for arm, each in changes.items() if each}
        if metric.is_headline and cells:
            yield Column(metric.title.lower(), f"{metric.compared} to dense, 95 % interval", cells)
    times = {name: _latency(arm.latency_ms) for name, arm in loop.arms.items() if arm.latency_ms}
    if times:
        yield Column("a chunk, ms", "median; p95 / p99", times)


def _latency(ms: Percentiles) -> Cell:
    p50, p95, p99 = (wording.number(value, 1) for value in (ms.p50, ms.p95, ms.p99))
    return Cell(p50, (f"{p95} / {p99}",))


def renamed(columns: Iterator[Column], note: str, rows: Mapping[str, str]) -> Iterator[Column]:
    """Columns with a note before their own, and only these rows, under their new names."""
    for column in columns:
        cells = {rows[arm]: cell for arm, cell in column.cells.items() if arm in rows}
        notes = ", ".join(filter(None, (note, column.note)))
        yield replace(column, note=notes, cells=cells)
