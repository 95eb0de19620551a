"""report.html: a run on one page that needs nothing but itself."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from einsort_vla.results.card import write_card
from einsort_vla.results.curve import colours_of, delay_curve, difference_curve, success_curve
from einsort_vla.results.folder import PAGE
from einsort_vla.results.motion import motion_changes
from einsort_vla.results.rendering import render
from einsort_vla.results.videos import Film, choose_films

OUTCOMES = {
    "both": "Both succeed.",
    "only dense": "Only the dense policy succeeds.",
    "only compressed": "Only the compressed policy succeeds.",
}

Report = dict[str, Any]


def write_pages(report: Report, folder: Path) -> Path:
    """Write report.html and report.md into the run folder; the path of the first."""
    write_card(report, folder)
    return write_page(report, folder)


def write_page(report: Report, folder: Path) -> Path:
    """Write report.html into the folder of the run whose report this is."""
    path = folder / PAGE
    path.write_text(page_text(report, choose_films(report, folder)), encoding="utf-8")
    return path


def page_text(report: Report, films: Sequence[Film] = ()) -> str:
    """The page as HTML; the same report and films give the same text.

    Args:
        report: content of report.json, schema 2.
        films: videos to embed.
    """
    curves = success_curve(report), difference_curve(report), delay_curve(report)
    return render(
        "run.html.jinja",
        report=report,
        name=Path(report["policy"]).name,
        suites=list(dict.fromkeys(task["suite"] for task in report["per_task"])),
        curves=[Markup(curve) if curve else None for curve in curves],
        colours=colours_of(report),
        motion=motion_changes(report),
        outcomes=OUTCOMES,
        films=films,
        command=command_of(report["config"]),
    )


def command_of(config: dict[str, Any]) -> str:
    """The command line with these settings."""
    words = ["python", "eval/libero.py"]
    for key, value in config.items():
        if value is None or value is False or value == []:
            continue
        words.append(f"--{key.replace('_', '-')}")
        if value is not True:
            words += map(str, value if isinstance(value, list) else [value])
    return shlex.join(words)
