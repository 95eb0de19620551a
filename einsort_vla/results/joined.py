"""All results of one checkpoint, or of one policy at several rates, joined into one report."""

from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from einsort_vla.errors import UsageError
from einsort_vla.results.glance import codes_of, groups_of
from einsort_vla.results.measures import Estimate
from einsort_vla.results.sources import ClosedLoop, Model, Sources, TextRun, code_of, name_of

SCHEMA, KIND = 1, "joined"
CLOSED_LOOP = "Robot in closed loop"
SETTINGS = ("backend", "runtime", "batch", "calibrate")  # that decide how an episode ends


def check_joinable(sources: Sources) -> None:
    """Refuse what cannot stand on one page.

    Raises:
        UsageError: closed-loop runs are of several policies, or two runs of one model and arm
            disagree on the same episode or the same number.
    """
    for one, other in combinations(sources.loops, 2):
        if not one.model.is_same(other.model):
            raise UsageError(
                f"{one.name} is of the policy {one.model}, {other.name} of {other.model}. A report "
                "is of one policy; put the runs of each in a folder of their own."
            )
        _check_loops(one, other)
    for one, other in combinations(sources.texts, 2):
        _check_texts(one, other)


def _check_loops(one: ClosedLoop, other: ClosedLoop) -> None:
    """Episodes that both have ended alike, where all that is known to decide them is the same."""
    if _setting(one) != _setting(other):
        return
    known = {record.key: record for record in one.records if record.outcome != "error"}
    for record in other.records:
        same = known.get(record.key)
        if same and record.outcome not in ("error", same.outcome):
            scene = record.scene
            raise UsageError(
                f"{one.name} and {other.name} disagree: {scene.suite} task {scene.task_id} episode "
                f"{scene.episode} of arm {record.arm!r} is a {same.outcome} in one, a "
                f"{record.outcome} in the other. Leave one of them out."
            )


def _setting(loop: ClosedLoop) -> list[Any]:
    config = loop.run["config"]
    keys = ("protocol", "scenes", "inputs_sha256")
    return [loop.run.get(key) for key in keys] + [config.get(key) for key in SETTINGS]


def _check_texts(one: TextRun, other: TextRun) -> None:
    """Numbers of one model, arm and protocol are the same in both, once both are complete."""
    a, b = one.findings, other.findings
    if not (a and b and a.complete and b.complete and one.model.is_same(other.model)):
        return
    if (a.kind, a.protocol) != (b.kind, b.protocol):
        return
    measures = {measure.name: measure for measure in b.measures}
    for measure in a.measures:
        others = measures[measure.name].arms if measure.name in measures else {}
        for arm, estimate in measure.arms.items():
            if arm in others and others[arm] != estimate:
                raise UsageError(
                    f"{one.name} and {other.name} disagree: {measure.name} of arm {arm!r} is "
                    f"{_told(estimate)} in one, {_told(others[arm])} in the other. "
                    "Leave one of them out."
                )


def _told(estimate: Estimate) -> str:
    return f"{estimate.value:.6g} (n = {estimate.n})"


@dataclass(frozen=True)
class Finding:
    """What one run found, in words."""

    title: str
    name: str  # of its folder
    model: Model
    verdict: str
    state: str = ""  # a verdict that all arms of a closed-loop run share
    complete: bool = True
    notes: tuple[str, ...] = ()


def verdicts_of(sources: Sources) -> list[Finding]:
    """One a run that has found something."""
    loops = [
        Finding(CLOSED_LOOP, loop.name, loop.model, loop.report["verdict"], _state(loop),
                loop.report["complete"])
        for loop in sources.loops
    ]  # fmt: skip
    texts = [
        Finding(run.title, run.name, run.model, run.findings.verdict,
                complete=run.findings.complete, notes=run.findings.notes)
        for run in sources.texts
        if run.findings
    ]  # fmt: skip
    return [*loops, *texts]


def _state(loop: ClosedLoop) -> str:
    states = {pair["noninferiority"]["verdict"] for pair in loop.report["paired"].values()}
    return states.pop() if len(states) == 1 else ""


def subject_of(sources: Sources) -> str:
    """The name of the policy, or without one those of the models."""
    runs = sources.loops or sources.texts
    return ", ".join(dict.fromkeys(run.model.name for run in runs)) or "Latency"


def unfinished(sources: Sources) -> list[str]:
    """Names of runs that have work left."""
    loops = [loop.name for loop in sources.loops if not loop.report["complete"]]
    texts = [run.name for run in sources.texts if not (run.findings and run.findings.complete)]
    return [*loops, *texts]


def joined_report(sources: Sources) -> dict[str, Any]:
    """The content of report.json of a folder of runs: each run's own, and every arm at a glance."""
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "complete": not unfinished(sources),
        "arms": _arms(sources),
        "closed_loop": [
            {"folder": loop.name, "model": asdict(loop.model), "report": loop.report}
            for loop in sources.loops
        ],
        "texts": [
            {
                "folder": run.name,
                "model": asdict(run.model),
                "findings": asdict(run.findings) if run.findings else None,
            }
            for run in sources.texts
        ],
        "latency": [
            {"file": receipt.name, "source": dict(receipt.source), "receipt": dict(receipt.content)}
            for receipt in sources.receipts
        ],
        "unused": list(sources.unused),
    }


def _arms(sources: Sources) -> dict[str, dict[str, Any]]:
    """Each arm, and the runs that have it; their numbers are with the runs."""
    return {
        name_of(code): {
            "codec": code[0],
            "rate_requested": code[1],
            "runs": [run.name for run in sources.runs if code in map(code_of, run.arms.values())],
        }
        for code in codes_of(groups_of(sources))
    }
