"""report.html of a folder of runs: all that is known of one policy, or model, on one page."""

import json
from pathlib import Path

from markupsafe import Markup

from einsort_vla.results.curve import colours_of, delay_curve, difference_curve, success_curve
from einsort_vla.results.folder import CARD, PAGE, REPORT
from einsort_vla.results.glance import codes_of, groups_of, suites_of
from einsort_vla.results.joined import joined_report, subject_of, unfinished, verdicts_of
from einsort_vla.results.joined_card import joined_text
from einsort_vla.results.latency import timings_of
from einsort_vla.results.rendering import render
from einsort_vla.results.sources import ClosedLoop, Sources, name_of
from einsort_vla.results.text_page import measure_curves


def write_joined(sources: Sources, folder: Path) -> Path:
    """Write report.json, report.html and report.md of a folder of runs; the path of the second."""
    content = json.dumps(joined_report(sources), indent=2, allow_nan=False) + "\n"
    texts = {REPORT: content, CARD: joined_text(sources), PAGE: joined_page(sources)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / PAGE


def joined_page(sources: Sources) -> str:
    """The page as HTML; the same sources give the same text."""
    arms = [arm for run in sources.runs for arm in run.arms.values()]
    colours = colours_of({"arms": dict(enumerate(arms))})
    return render(
        "joined.html.jinja",
        subject=subject_of(sources),
        policy=sources.loops[0].model if sources.loops else None,
        verdicts=verdicts_of(sources),
        unfinished=unfinished(sources),
        groups=groups_of(sources),
        codes_of=codes_of,
        colours=colours,
        name_of=name_of,
        suites_of=suites_of,
        loops=sources.loops,
        loop_curves={loop.name: _curves(loop) for loop in sources.loops},
        texts=sources.texts,
        text_curves={
            run.name: measure_curves(run.findings, colours, run.name)
            for run in sources.texts
            if run.findings
        },
        timings=list(timings_of(sources.loops, sources.receipts)),
        unused=sources.unused,
    )


def _curves(loop: ClosedLoop) -> list[Markup | None]:
    drawn = [
        draw(loop.report, loop.name) for draw in (success_curve, difference_curve, delay_curve)
    ]
    return [Markup(curve) if curve else None for curve in drawn]
