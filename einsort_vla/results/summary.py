"""What a person reads of a report on the terminal."""

from collections.abc import Iterator
from textwrap import fill

from rich import box
from rich.console import Console
from rich.table import Table as Drawn

from einsort_vla.results import wording
from einsort_vla.results.columns import Table, report_table
from einsort_vla.results.joined import groups_of
from einsort_vla.results.report import ClosedLoop, Report
from einsort_vla.results.sources import Sources

MOST_ARMS_BY_TASK = 3  # more columns than that do not fit beside the instruction
NARROWEST = 9  # letters of a column
RESUME = "the same command with --resume goes on."


def print_report(report: Report, console: Console) -> None:
    """A row of figures for each arm, then what they show and what is missing."""
    parts: list[Drawn | str] = [_drawn(report_table(report), "arm")]
    if report.closed_loop and len(report.arms) <= MOST_ARMS_BY_TASK:
        parts.append(_task_table(report.closed_loop))
    parts += [report.verdict, *report.notes]
    if loop := report.closed_loop:
        parts += [*_backends(loop), *_memory(loop)]
    if not report.complete:
        what = "some episodes are missing or ended in an error" * bool(report.closed_loop)
        parts.append(f"INCOMPLETE: {what or 'some answers are missing'}; {RESUME}")
    for part in filter(None, parts):
        console.print(part)


def print_joined(sources: Sources, console: Console) -> None:
    """Every arm of every run at a glance, a table for each model; then what each run found."""
    known = [(run, run.report) for run in sources.runs if run.report]
    found = [f"{run.title} ({run.name}, {run.model.name}): {each.verdict}" for run, each in known]
    notes = dict.fromkeys(note for _, each in known for note in each.notes)
    found += [f"Note: {note}" for note in notes]
    if sources.unfinished:
        found.append(f"INCOMPLETE: {', '.join(sources.unfinished)}; {RESUME}")
    if sources.unused:
        found.append(f"In the folder, but no results: {', '.join(sources.unused)}.")
    tables = [_drawn(group.table, group.model.name) for group in groups_of(sources)]
    for part in (*tables, *found):
        console.print(part)


def _drawn(table: Table, corner: str) -> Drawn:
    headings = []
    for column in table.columns:  # headings are wrapped, numbers are not
        lines = [line for cell in column.cells.values() for line in cell.lines]
        width = max(NARROWEST, *map(len, lines))
        headings.append("\n".join(fill(text, width) for text in (column.title, column.note)))
    drawn = _new(corner, *headings)
    for name in table.rows:
        drawn.add_row(name, *["\n".join(cell.lines) for cell in table.cells(name)])
    return drawn


def _task_table(loop: ClosedLoop) -> Drawn:
    drawn = _new("task", *loop.arms)
    for task in loop.tasks:
        label = f"{task.suite} {task.task_id}  {task.language}"
        drawn.add_row(label, *[wording.count(task.arms[name]) for name in loop.arms])
    return drawn


def _new(corner: str, *headings: str) -> Drawn:
    drawn = Drawn(corner, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        drawn.add_column(heading, justify="right")
    return drawn


def _memory(loop: ClosedLoop) -> Iterator[str]:
    """What the runtimes hold: one sentence, where it was measured."""
    held = {name: arm.memory_bytes for name, arm in loop.arms.items() if arm.memory_bytes}
    if held:
        told = wording.listed([f"{n / 1e6:.0f} MB of {name}" for name, n in held.items()])
        yield f"Memory that ONNX Runtime holds after a chunk, beside what importing takes: {told}."


def _backends(loop: ClosedLoop) -> Iterator[str]:
    """What computed the coded layers: one sentence for arms that agree."""
    arms_by_mix: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for name, arm in loop.arms.items():
        if mix := tuple(arm.coded_layers.items()):
            arms_by_mix.setdefault(mix, []).append(name)
    for mix, arms in arms_by_mix.items():
        told = wording.listed([f"{n} ran on the backend {name}" for name, n in mix])
        yield f"Coded layers of {wording.listed(arms)}: {told}."
