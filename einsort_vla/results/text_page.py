"""report.html and report.md of a text evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from einsort_vla.errors import CheckpointError
from einsort_vla.results import wording
from einsort_vla.results.curve import colours_of
from einsort_vla.results.folder import CARD, PAGE, REPORT
from einsort_vla.results.glance import measure_cell
from einsort_vla.results.measure_curve import measure_curve
from einsort_vla.results.measures import Findings, Measure
from einsort_vla.results.rendering import render
from einsort_vla.results.sources import TextRun, read_text_run


def write_text_pages(folder: Path) -> Path:
    """Write report.html and report.md of a text evaluation into its folder; the path of the first.

    Args:
        folder: with run.json and report.json.

    Raises:
        CheckpointError: it is no such folder, or the evaluation has no report yet.
    """
    run = read_text_run(folder)
    if run.findings is None:
        raise CheckpointError(
            f"{folder} has a run that has found nothing yet (no {REPORT}). Run the same command "
            "again with --resume."
        )
    texts = {CARD: findings_text(run.findings), PAGE: text_page(run)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / PAGE


def text_page(run: TextRun) -> str:
    """The page of a text evaluation as HTML."""
    findings = run.findings
    assert findings
    colours = colours_of({"arms": findings.arms})
    return render(
        "text_run.html.jinja",
        findings=findings,
        title=run.title,
        model=run.model,
        colours=colours,
        curves=measure_curves(findings, colours),
    )


def measure_curves(
    findings: Findings, colours: Mapping[str, int], salt: str = ""
) -> list[tuple[Measure, Markup]]:
    """Measures with their curves; without those that no compressed arm has."""
    drawn = [
        (each, measure_curve(each, findings.arms, colours, salt)) for each in findings.measures
    ]
    return [(measure, Markup(curve)) for measure, curve in drawn if curve]


def findings_text(findings: Findings, only: Sequence[str] | None = None) -> str:
    """Verdict, measures and notes in Markdown without a heading.

    Args:
        findings: of a text evaluation.
        only: arms to tell of, without the verdict, which is of all; None for all.
    """
    arms = [name for name in findings.arms if only is None or name in only]
    parts = [f"**{findings.verdict}**"] if only is None and findings.verdict else []
    if not findings.complete:
        parts.append("INCOMPLETE: these numbers are of what is finished.")
    parts += [_table(findings, measure, arms) for measure in findings.measures]
    parts += [f"Note: {note}" for note in findings.notes]
    return "\n\n".join(parts) + "\n"


def _table(findings: Findings, measure: Measure, arms: Sequence[str]) -> str:
    change = f"{measure.paired_as} to dense"
    rows = [
        f"| arm | rate | bits a weight | {measure.name} | 95 % | n | {change} | 95 % |",
        "|---|---|---|---|---|---|---|---|",
        *[_row(findings, measure, arm) for arm in arms if arm in measure.arms],
    ]
    told = (
        f"{wording.opening(measure.name)}: {measure.better} is better; n counts {measure.counted}; "
    )
    return "\n".join(rows) + f"\n\n{told}{measure.interval}"


def _row(findings: Findings, measure: Measure, arm: str) -> str:
    facts, cell = findings.arms[arm], measure_cell(measure, arm)
    size = facts["compression"]
    cells = [
        arm,
        f"{facts['rate_requested']:g}" if size else wording.DASH,
        wording.number(size["bits_per_weight"]) if size else "16",
        cell.text,
        cell.interval,
        f"{measure.arms[arm].n}",
        cell.change or wording.DASH,
        cell.change_interval or wording.DASH,
    ]
    return f"| {' | '.join(cells)} |"
