"""report.html of a folder of runs: all that is known of one policy, or model, on one page."""

from pathlib import Path

from einsort_vla.results.curve import colours_of
from einsort_vla.results.folder import CARD, PAGE, REPORT
from einsort_vla.results.glance import groups_of
from einsort_vla.results.joined import joined_report, subject_of, unfinished, verdicts_of
from einsort_vla.results.joined_card import joined_text
from einsort_vla.results.latency import timings_of
from einsort_vla.results.page import section_of
from einsort_vla.results.reading import write_record
from einsort_vla.results.rendering import render
from einsort_vla.results.sources import Sources


def write_joined(sources: Sources, folder: Path) -> Path:
    """Write report.json, report.html and report.md of a folder of runs; the path of the second."""
    texts = {CARD: joined_text(sources), PAGE: joined_page(sources)}
    write_record(folder / REPORT, joined_report(sources))
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / PAGE


def joined_page(sources: Sources) -> str:
    """The page as HTML; the same sources give the same text."""
    colours = colours_of(arm for run in sources.runs for arm in run.arms)
    return render(
        "joined.html.jinja",
        subject=subject_of(sources),
        policy=sources.loops[0].model if sources.loops else None,
        verdicts=verdicts_of(sources),
        unfinished=unfinished(sources),
        groups=groups_of(sources),
        colours=colours,
        runs=[
            (run, section_of(run.report, colours, run.name) if run.report else None)
            for run in sources.runs
        ],
        timings=list(timings_of(sources.loops, sources.receipts)),
        unused=sources.unused,
    )
