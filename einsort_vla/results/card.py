"""report.md: the results of one run as Markdown, for the model card of a compressed policy."""

from dataclasses import replace

from einsort_vla.results import wording
from einsort_vla.results.changes import motion_changes
from einsort_vla.results.columns import report_table
from einsort_vla.results.report import ClosedLoop, Report
from einsort_vla.results.run import Design
from einsort_vla.results.table import markdown
from einsort_vla.results.verdict import state


def card_text(report: Report, arm: str | None = None) -> str:
    """Verdict, arms, method and notes of a run, in Markdown without a heading.

    Args:
        report: of the run.
        arm: the compressed arm the text is about, with its dense arm; None for all.

    Raises:
        UsageError: the run has no such compressed arm.
    """
    if arm is not None:
        report = report.only(arm)
        report = replace(report, verdict=state(report))
    parts = [f"**{report.verdict}**"] if report.verdict else []
    if not report.complete:
        parts.append("INCOMPLETE: these numbers are of what is finished.")
    parts += [markdown(report_table(report)), _method(report)]
    if report.closed_loop:
        parts += [_motion(report.closed_loop, name) for name in report.closed_loop.pairs]
    parts += [f"Note: {note}" for note in report.notes]
    return "\n\n".join(parts) + "\n"


def _method(report: Report) -> str:
    told = [_design(report.run.design)] if report.run.design else []
    return " ".join(told + [f"{wording.opening(m.name)}: {m.interval}" for m in report.measures])


def _design(design: Design) -> str:
    scenes, moved = design.scenes, design.scenes.displacement_m
    parts = [
        f"Closed loop in {design.environment} ({design.suites}; "
        f"{wording.n_of(len(design.tasks), 'tasks')})",
        f"protocol {design.protocol.get('name', wording.DASH)}",
        f"{scenes.initial_states} initial states",
        *[f"objects displaced by up to {100 * moved:g} cm"] * bool(moved),
        *["pictures of another scene"] * scenes.wrong_pictures,
        f"margin {100 * design.margin:g} points",
    ]
    return f"{', '.join(parts)}."


def _motion(loop: ClosedLoop, name: str) -> str:
    changes = [(metric, found[name]) for metric, found in motion_changes(loop)]
    told = [
        f"{metric.title.lower()} {change.text} ({change.interval})"
        for metric, change in changes
        if change
    ]
    shown = ", ".join(told) or "there is no pair that both solve"
    return f"Motion of {name} against {loop.pairs[name].reference}: {shown}."
