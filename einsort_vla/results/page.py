"""report.html and report.md of a run: each needs nothing but itself."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from einsort_vla.results.card import card_text
from einsort_vla.results.changes import motion_changes
from einsort_vla.results.columns import report_table
from einsort_vla.results.curve import Figure, colours_of, figures_of
from einsort_vla.results.folder import CARD, PAGE
from einsort_vla.results.joined import state_of
from einsort_vla.results.rendering import render
from einsort_vla.results.report import Report
from einsort_vla.results.run import Run
from einsort_vla.results.table import Table
from einsort_vla.results.videos import Film, choose_films

OUTCOMES = {
    "both": "Both succeed.",
    "only dense": "Only the dense policy succeeds.",
    "only compressed": "Only the compressed policy succeeds.",
}


@dataclass(frozen=True)
class Section:
    """What every page shows of one run."""

    report: Report
    table: Table
    figures: Sequence[Figure]


def section_of(report: Report, colours: Mapping[str, int], salt: str = "") -> Section:
    """The table and the curves of a run; `salt` tells its curves from others of the same page."""
    return Section(report, report_table(report), figures_of(report, colours, salt))


def write_pages(report: Report, folder: Path) -> Path:
    """Write report.html and report.md into the run folder; the path of the first."""
    texts = {CARD: card_text(report), PAGE: page_text(report, choose_films(report, folder))}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / PAGE


def page_text(report: Report, films: Sequence[Film] = ()) -> str:
    """The page as HTML; the same report and films give the same text.

    Args:
        report: of the run.
        films: videos to embed.
    """
    colours = colours_of(report.arms)
    return render(
        "run.html.jinja",
        section=section_of(report, colours),
        report=report,
        name=Path(report.run.model).name,
        state=state_of(report),
        colours=colours,
        motion=motion_changes(report.closed_loop) if report.closed_loop else [],
        outcomes=OUTCOMES,
        films=films,
        command=command_of(report.run),
    )


def command_of(run: Run) -> str:
    """The command line that runs it again."""
    words = ["python", run.script]
    for key, value in run.config.items():
        if value is None or value is False:
            continue
        words.append(f"--{key.replace('_', '-')}")
        if value is not True:
            words.append(str(value))
    return shlex.join(words)
