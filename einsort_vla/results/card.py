"""report.md: results as Markdown, of a run, a folder of runs, or one compressed checkpoint."""

from collections.abc import Iterable
from dataclasses import dataclass

from msgspec.structs import replace

from einsort_vla.errors import UsageError
from einsort_vla.results import wording
from einsort_vla.results.arms import DENSE, Code, undelayed
from einsort_vla.results.changes import motion_changes
from einsort_vla.results.columns import markdown, markdown_rows, report_table
from einsort_vla.results.joined import Timing, groups_of, timings_of
from einsort_vla.results.report import ClosedLoop, Report
from einsort_vla.results.run import Design
from einsort_vla.results.sources import Source, Sources
from einsort_vla.results.verdict import state
from einsort_vla.results.wording import escaped

OTHER = "Of another model, coded alike; not results of this checkpoint."


@dataclass(frozen=True)
class Identity:
    """What a compressed checkpoint is: by this it is found among results."""

    name: str
    code: Code
    source_sha256: str  # of the dense weights it was made of
    weights_sha256: str  # of its own
    is_calibrated: bool

    def __str__(self) -> str:
        calibrated = ", calibrated," if self.is_calibrated else ""
        return f"{self.code}{calibrated} of dense weights {self.source_sha256[:12]}"


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
    parts = [f"**{escaped(report.verdict)}**"] if report.verdict else []
    if not report.complete:
        parts.append("INCOMPLETE: these numbers are of what is finished.")
    parts += [markdown(report_table(report)), _method(report)]
    if report.closed_loop:
        parts += [_motion(report.closed_loop, name) for name in report.closed_loop.pairs]
    parts += [f"Note: {escaped(note)}" for note in report.notes]
    return "\n\n".join(parts) + "\n"


def _method(report: Report) -> str:
    told = [_design(report.run.design)] if report.run.design else []
    told += [escaped(f"{wording.opening(m.name)}: {m.interval}") for m in report.measures]
    return " ".join(told)


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
    return escaped(f"{', '.join(parts)}.")


def _motion(loop: ClosedLoop, name: str) -> str:
    told = [
        f"{metric.title.lower()} {change.text} ({change.interval})"
        for metric, found in motion_changes(loop)
        if (change := found[name])
    ]
    shown = ", ".join(told) or "there is no pair that both solve"
    return escaped(f"Motion of {name} against {loop.pairs[name].reference}: {shown}.")


def joined_text(sources: Sources) -> str:
    """Every arm at a glance, then each run, in Markdown."""
    parts = []
    for group in groups_of(sources):
        parts += [f"### {escaped(group.table.title)}", markdown(group.table)]
    if sources.unfinished:
        parts.append(escaped(f"INCOMPLETE: {', '.join(sources.unfinished)}."))
    parts += [_run_text(run) for run in sources.runs]
    parts += [_latency(timings_of(sources.loops, sources.receipts))]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def checkpoint_text(sources: Sources, checkpoint: Identity) -> str:
    """The results of one compressed folder and its dense model, in Markdown.

    Results of other models at the same code and rate are told apart from its own.

    Raises:
        UsageError: no run is of this checkpoint.
    """
    own = [run for run in sources.runs if _is_of(run, checkpoint)]
    if not own:
        raise UsageError(
            f"no result is of {checkpoint.name} ({checkpoint}). There are: "
            f"{'; '.join(map(_told, sources.runs)) or 'receipts alone'}."
        )
    others = [run for run in sources.texts if run not in own and checkpoint.code in run.codes]
    parts = [_one_arm(run, checkpoint.code) for run in own]
    timings = timings_of([run for run in own if run in sources.loops], sources.receipts)
    parts.append(_latency(each for each in timings if each.code in (DENSE, checkpoint.code)))
    parts += [_one_arm(run, checkpoint.code, OTHER) for run in others]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _is_of(run: Source, checkpoint: Identity) -> bool:
    """Same dense weights, codec, rate and calibration; and the same own weights if the run has any.

    A calibrated copy has the codec and rate of one that is not, and other weights.
    """
    return (
        run.model.sha256 == checkpoint.source_sha256
        and checkpoint.code in run.codes
        and run.run.is_calibrated == checkpoint.is_calibrated
        and run.weights_of(checkpoint.code) in (None, checkpoint.weights_sha256)
    )


def _told(run: Source) -> str:
    arms = dict.fromkeys(str(arm.code) for arm in run.arms)
    calibrated = ", calibrated" if run.run.is_calibrated else ""
    return f"{run.name} with {', '.join(arms) or 'no arm yet'}{calibrated}, of {run.model}"


def _one_arm(run: Source, code: Code, note: str = "") -> str:
    return _run_text(run, next(arm.name for arm in undelayed(run.arms) if arm.code == code), note)


def _run_text(run: Source, arm: str | None = None, note: str = "") -> str:
    if not run.report:
        return f"### {escaped(run.name)}\n\nINCOMPLETE: no results yet."
    told = f"{note}\n\n" if note else ""
    title = escaped(f"{run.title}: {run.model.name}")
    return f"### {title}\n\n{told}{card_text(run.report, arm)}"


def _latency(timings: Iterable[Timing]) -> str:
    if not (rows := [_timing_row(each) for each in timings]):
        return ""
    heads = ["arm", "where", "p50", "p95", "p99", "chunks"]
    table = markdown_rows([[(cell,) for cell in row] for row in (heads, *rows)])
    return f"### Latency\n\nMilliseconds for one chunk of actions.\n\n{table}"


def _timing_row(timing: Timing) -> list[str]:
    name = str(timing.code) if timing.code else f"unknown ({timing.source})"
    ms = timing.ms
    shares = [wording.number(share, 1) for share in (ms.p50, ms.p95, ms.p99)] if ms else []
    return [name, timing.where, *(shares or [wording.DASH] * 3), str(ms.n if ms else 0)]
