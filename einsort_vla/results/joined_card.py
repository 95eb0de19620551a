"""report.md of a folder of runs, and what of it goes into the model card of one checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass

from einsort_vla.errors import UsageError
from einsort_vla.results import wording
from einsort_vla.results.arms import DENSE, Code, undelayed
from einsort_vla.results.card import card_text
from einsort_vla.results.glance import groups_of
from einsort_vla.results.joined import unfinished
from einsort_vla.results.latency import Timing, timings_of
from einsort_vla.results.sources import Source, Sources
from einsort_vla.results.table import markdown

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


def joined_text(sources: Sources) -> str:
    """Every arm at a glance, then each run, in Markdown."""
    parts = []
    for group in groups_of(sources):
        parts += [f"### {group.table.title}", markdown(group.table)]
    if open_runs := unfinished(sources):
        parts.append(f"INCOMPLETE: {', '.join(open_runs)}.")
    parts += [_run_text(run) for run in sources.runs]
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
    others = [run for run in sources.texts if run not in own and checkpoint.code in run.codes]
    parts = [_one_arm(run, checkpoint.code) for run in own]
    timings = timings_of([run for run in own if run in sources.loops], sources.receipts)
    parts.append(_latency([each for each in timings if each.code in (DENSE, checkpoint.code)]))
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
        return f"### {run.name}\n\nINCOMPLETE: no results yet."
    told = f"{note}\n\n" if note else ""
    return f"### {run.title}: {run.model.name}\n\n{told}{card_text(run.report, arm)}"


def _latency(timings: Sequence[Timing]) -> str:
    if not timings:
        return ""
    rows = "\n".join(_timing_row(each) for each in timings)
    return (
        "### Latency\n\nMilliseconds for one chunk of actions.\n\n"
        f"| arm | where | p50 | p95 | p99 | chunks |\n|---|---|---|---|---|---|\n{rows}"
    )


def _timing_row(timing: Timing) -> str:
    name = str(timing.code) if timing.code else f"unknown ({timing.source})"
    ms = timing.ms
    shares = [wording.number(share, 1) for share in (ms.p50, ms.p95, ms.p99)] if ms else []
    cells = [*(shares or [wording.DASH] * 3), str(ms.n if ms else 0)]
    return f"| {' | '.join([name, timing.where, *cells])} |"
