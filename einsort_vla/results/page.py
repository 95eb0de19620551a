"""report.html of a run, or of a folder of runs: it needs nothing but itself."""

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from msgspec import Struct
from msgspec.structs import asdict

from einsort_vla.atomic import write_text
from einsort_vla.results import wording
from einsort_vla.results.card import card_text, joined_text
from einsort_vla.results.changes import motion_changes
from einsort_vla.results.columns import Table, report_table
from einsort_vla.results.curve import Figure, colours_of, figures_of
from einsort_vla.results.joined import groups_of, joined_report, timings_of
from einsort_vla.results.record import write_record
from einsort_vla.results.report import Report
from einsort_vla.results.run import CARD, PAGE, REPORT, Run
from einsort_vla.results.sources import Sources
from einsort_vla.results.videos import Film, choose_films

_SENTENCE_END = re.compile(r"(?<=\.) (?=[A-Z])")
_WORDS = (
    wording.percent, wording.points_range, wording.number, wording.p_value, wording.megabytes,
    wording.count, wording.opening, wording.n_of,
)  # fmt: skip
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
    return _write(folder, page_text(report, choose_films(report, folder)), card_text(report))


def write_joined(sources: Sources, folder: Path) -> Path:
    """Write report.json, report.html and report.md of a folder of runs; the path of the second."""
    page, card = joined_page(sources), joined_text(sources)
    write_record(folder / REPORT, joined_report(sources))
    return _write(folder, page, card)


def _write(folder: Path, page: str, card: str) -> Path:
    write_text(folder / CARD, card)  # in the place of a link, not where it leads
    write_text(folder / PAGE, page)
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
        colours=colours,
        motion=motion_changes(report.closed_loop) if report.closed_loop else [],
        outcomes=OUTCOMES,
        films=films,
        command=command_of(report.run),
    )


def joined_page(sources: Sources) -> str:
    """The page of a folder of runs as HTML; the same sources give the same text."""
    colours = colours_of(arm for run in sources.runs for arm in run.arms)
    sections = [
        section_of(run.report, colours, run.name) if run.report else None for run in sources.runs
    ]
    names = dict.fromkeys(run.model.name for run in sources.loops or sources.texts)
    return render(
        "joined.html.jinja",
        subject=", ".join(names) or "Latency",
        policy=sources.loops[0].model if sources.loops else None,
        sources=sources,
        groups=groups_of(sources),
        colours=colours,
        runs=list(zip(sources.runs, sections, strict=True)),
        timings=list(timings_of(sources.loops, sources.receipts)),
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


def render(template: str, **content: Any) -> str:
    """A page as HTML; the same content gives the same text.

    Args:
        template: its name in the folder templates.
        content: what the template names; a missing one is an error. Text is escaped.
    """
    environment = Environment(
        loader=PackageLoader("einsort_vla.results", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {word.__name__: word for word in (*_WORDS, as_facts, indented, plain)}
    environment.filters["sentences"] = _SENTENCE_END.split
    return environment.get_template(template).render(**content)


def indented(value: Any) -> str:
    """JSON on several lines."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def as_facts(value: Any) -> Any:
    """A mapping, or a record as one."""
    return asdict(value) if isinstance(value, Struct) else value


def plain(value: Any) -> str:
    """A setting as words: lists and tables on one line, yes and no, a dash for nothing."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(v)}" for key, v in value.items()) or wording.DASH
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or wording.DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return wording.DASH if value is None else str(value)
