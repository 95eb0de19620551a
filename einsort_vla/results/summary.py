"""What a person reads of a report on the terminal."""

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from einsort_vla.results import wording
from einsort_vla.results.glance import Cell, Group, codes_of, groups_of
from einsort_vla.results.joined import unfinished, verdicts_of
from einsort_vla.results.sources import Sources, name_of
from einsort_vla.results.verdict import interval_of

MOST_ARMS_BY_TASK = 3  # more columns than that do not fit beside the instruction


def print_summary(report: dict[str, Any], console: Console) -> None:
    """A row of figures for each arm, then what they show and what is missing."""
    tables = [_arm_table(report)]
    if len(report["arms"]) <= MOST_ARMS_BY_TASK:
        tables.append(_task_table(report))
    sentences = [report["verdict"], *_layers(report)]
    if not report["complete"]:
        sentences.append(
            "INCOMPLETE: some episodes are missing or ended in an error; the same command with "
            "--resume runs them."
        )
    for part in (*tables, *sentences):
        console.print(part, highlight=False, markup=False)


def print_joined(sources: Sources, console: Console) -> None:
    """Every arm of every run at a glance, a table for each model; then what each run found."""
    found = [f"{each.title} ({each.name}, {each.model.name}): {each.verdict}"
             for each in verdicts_of(sources)]  # fmt: skip
    notes = dict.fromkeys(note for each in verdicts_of(sources) for note in each.notes)
    found += [f"Note: {note}" for note in notes]
    if open_runs := unfinished(sources):
        found.append(f"INCOMPLETE: {', '.join(open_runs)}; the same command with --resume goes on.")
    if sources.unused:
        found.append(f"In the folder, and no results: {', '.join(sources.unused)}.")
    for part in (*map(_glance_table, groups_of(sources)), *found):
        console.print(part, highlight=False, markup=False)


def _glance_table(group: Group) -> Table:
    table = _table(group.model.name)
    for column in group.columns:
        table.add_column(f"{column.title}\n{column.note}", justify="right")
    for code in codes_of([group]):
        cells = [column.cells.get(code, Cell()) for column in group.columns]
        rows = ["\n".join(filter(None, (c.text, c.interval, c.changed))) for c in cells]
        table.add_row(name_of(code), *rows)
    return table


def _arm_table(report: dict[str, Any]) -> Table:
    table = _table("arm")
    for heading in ("rate", "bits", "MB", "success\n95 %", "difference\n95 %, points", "verdict",
                    "jerk\nratio", "chunk ms\np50/p95"):  # fmt: skip
        table.add_column(heading, justify="left" if heading == "verdict" else "right")
    for name, arm in report["arms"].items():
        compression, pair = arm["compression"], report["paired"].get(name)
        table.add_row(
            name,
            f"{arm['rate_requested']:g}" if compression else "",
            f"{compression['bits_per_weight']:.1f}" if compression else "",
            _megabytes(compression["bytes"]) if compression else "",
            f"{wording.count(arm)}\n{_percent_range(arm['wilson95'])}",
            *(_paired_cells(report, pair) if pair else ("", "", "")),
            "/".join(wording.number(arm["latency_ms"][share], 0) for share in ("p50", "p95")),
        )
    return table


def _paired_cells(report: dict[str, Any], pair: dict[str, Any]) -> tuple[str, str, str]:
    interval = wording.points_range(interval_of(report, pair))
    return (
        f"{wording.points(pair['difference'])}\n{interval}",
        pair["noninferiority"]["verdict"],
        wording.number(pair["motion"]["jerk_m_s3"]["ratio"]),
    )


def _megabytes(n_bytes: dict[str, int] | None) -> str:
    """Of the compressed weights; a dash until they have been made."""
    return f"{n_bytes['compressed'] / 1e6:.1f}" if n_bytes else wording.DASH


def _percent_range(bounds: wording.Bounds) -> str:
    """Without decimals, for the width of the table."""
    return wording.DASH if bounds is None else f"{100 * bounds[0]:.0f} to {100 * bounds[1]:.0f} %"


def _task_table(report: dict[str, Any]) -> Table:
    table = _table("task")
    for name in report["arms"]:
        table.add_column(name, justify="right")
    for task in report["per_task"]:
        label = f"{task['suite']} {task['task_id']}  {task['language']}"
        table.add_row(label, *[wording.count(task["arms"][name]) for name in report["arms"]])
    return table


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first)
    return table


def _layers(report: dict[str, Any]) -> list[str]:
    """What multiplied the coded layers: one sentence for arms that agree."""
    mixes = dict.fromkeys(
        ", ".join(f"{name} {n}" for name, n in arm["coded_layers"].items())
        for arm in report["arms"].values()
        if arm["coded_layers"]
    )
    return [f"Coded layers by what multiplied them: {mix}." for mix in mixes]
