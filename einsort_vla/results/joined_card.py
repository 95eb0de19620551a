"""report.md of a folder of runs, and what of it goes into the model card of one checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from einsort_vla.errors import UsageError
from einsort_vla.results import wording
from einsort_vla.results.card import card_text
from einsort_vla.results.glance import Column, Group, codes_of, groups_of
from einsort_vla.results.joined import CLOSED_LOOP, unfinished
from einsort_vla.results.latency import Timing, timings_of
from einsort_vla.results.sources import (
    DENSE,
    ClosedLoop,
    Code,
    Sources,
    TextRun,
    code_of,
    name_of,
)
from einsort_vla.results.text_page import findings_text

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
        return f"{name_of(self.code)}{calibrated} of dense weights {self.source_sha256[:12]}"


def joined_text(sources: Sources) -> str:
    """Every arm at a glance, then each run, in Markdown."""
    groups = groups_of(sources)
    parts = [_glance(groups, codes_of(groups))]
    if open_runs := unfinished(sources):
        parts.append(f"INCOMPLETE: {', '.join(open_runs)}.")
    parts += [_loop_text(loop) for loop in sources.loops]
    parts += [_text_text(run) for run in sources.texts]
    parts += [_latency(list(timings_of(sources.loops, sources.receipts)))]
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
    others = [run for run in sources.texts if run not in own and _has(run, checkpoint.code)]
    parts = [_one_arm(run, checkpoint.code) for run in own]
    loops = [run for run in own if isinstance(run, ClosedLoop)]
    timings = timings_of(loops, sources.receipts)
    parts.append(_latency([each for each in timings if each.code in (DENSE, checkpoint.code)]))
    parts += [_one_arm(run, checkpoint.code, OTHER) for run in others]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _is_of(run: ClosedLoop | TextRun, checkpoint: Identity) -> bool:
    """Same dense weights, codec, rate and calibration; and the same own weights if the run has any.

    A calibrated copy has the codec and rate of one that is not, and other weights.
    """
    return (
        run.model.sha256 == checkpoint.source_sha256
        and _has(run, checkpoint.code)
        and run.is_calibrated == checkpoint.is_calibrated
        and run.weights_of(checkpoint.code) in (None, checkpoint.weights_sha256)
    )


def _has(run: ClosedLoop | TextRun, code: Code) -> bool:
    return code in map(code_of, run.arms.values())


def _told(run: ClosedLoop | TextRun) -> str:
    arms = dict.fromkeys(name_of(code_of(arm)) for arm in run.arms.values())
    calibrated = ", calibrated" if run.is_calibrated else ""
    return f"{run.name} with {', '.join(arms) or 'no arm yet'}{calibrated}, of {run.model}"


def _one_arm(run: ClosedLoop | TextRun, code: Code, note: str = "") -> str:
    if isinstance(run, ClosedLoop):
        name = next(name for name, arm in run.undelayed.items() if code_of(arm) == code)
        return _loop_text(run, name)
    names = [name for name, arm in run.arms.items() if code_of(arm) in (DENSE, code)]
    return _text_text(run, names, note)


def _loop_text(loop: ClosedLoop, arm: str | None = None) -> str:
    return f"### {CLOSED_LOOP}: {loop.model.name}\n\n{card_text(loop.report, arm)}"


def _text_text(run: TextRun, arms: Sequence[str] | None = None, note: str = "") -> str:
    if not run.findings:
        return f"### {run.name}\n\nINCOMPLETE: no results yet."
    told = f"{note}\n\n" if note else ""
    return f"### {run.title}: {run.model.name}\n\n{told}{findings_text(run.findings, arms)}"


def _glance(groups: Sequence[Group], codes: Sequence[Code]) -> str:
    columns = [(group, column) for group in groups for column in group.columns]
    heads = [f"{column.title}<br>{column.note}<br>{group.model.name}" for group, column in columns]
    rows = [
        f"| {' | '.join([name_of(code), *[_cell(column, code) for _, column in columns]])} |"
        for code in codes
    ]
    return "\n".join([f"| arm | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|", *rows])


def _cell(column: Column, code: Code) -> str:
    cell = column.cells.get(code)
    if cell is None:
        return wording.DASH
    return "<br>".join(filter(None, (cell.text, cell.interval, cell.changed, _word(cell.state))))


def _word(state: str) -> str:
    return "" if state in ("worse", "better") else state


def _latency(timings: Sequence[Timing]) -> str:
    if not timings:
        return ""
    rows = "\n".join(_timing_row(each) for each in timings)
    return (
        "### Latency\n\nMilliseconds for one chunk of actions.\n\n"
        f"| arm | where | p50 | p95 | p99 | chunks |\n|---|---|---|---|---|---|\n{rows}"
    )


def _timing_row(timing: Timing) -> str:
    name = name_of(timing.code) if timing.code else f"unknown ({timing.source})"
    shares = [wording.number(ms, 1) for ms in (timing.p50, timing.p95, timing.p99)]
    return f"| {' | '.join([name, timing.where, *shares, str(timing.n)])} |"
