"""Every arm of every run at a glance: a table for each dense model."""

from collections.abc import Sequence
from dataclasses import dataclass

from einsort_vla.results.arms import DENSE, Code, undelayed
from einsort_vla.results.columns import device_columns, result_columns, size_columns
from einsort_vla.results.latency import of_receipt
from einsort_vla.results.run import CLOSED_LOOP
from einsort_vla.results.sources import Bench, Model, Source, Sources
from einsort_vla.results.table import Table


@dataclass(frozen=True)
class Group:
    """All results of one dense model."""

    model: Model
    is_policy: bool
    table: Table


def groups_of(sources: Sources) -> list[Group]:
    """A table of each model, that of the policy first."""
    by_model: dict[str, list[Source]] = {}
    for run in sources.runs:
        by_model.setdefault(run.model.sha256 or f"{run.model.name} in {run.name}", []).append(run)
    return [_group(runs, sources.receipts) for runs in by_model.values()]


def codes_of(runs: Sequence[Source]) -> list[Code]:
    """All arms: the dense one, then each codec by rate."""
    found = dict.fromkeys(arm.code for run in runs for arm in run.arms)
    codecs = list(dict.fromkeys(code.codec for code in found))
    return sorted(found, key=lambda code: (code != DENSE, codecs.index(code.codec), code.rate))


def _group(runs: Sequence[Source], receipts: Sequence[Bench]) -> Group:
    loops = [run for run in runs if run.run.kind == CLOSED_LOOP]
    arms = [arm for run in runs for arm in run.arms]
    columns = size_columns(arms, lambda arm: str(arm.code)) if arms else []
    for run in runs:
        if run.report:
            rows = {arm.name: str(arm.code) for arm in undelayed(run.arms)}
            columns += result_columns(run.report, note_of(run), rows)
    columns += device_columns([of_receipt(each, loops) for each in receipts])
    rows = {str(code): code.codec for code in codes_of(runs)}
    title = f"Every arm of {runs[0].model.name}"
    return Group(runs[0].model, bool(loops), Table(title, rows, tuple(columns)))


def note_of(run: Source) -> str:
    """What tells its columns from those of other runs."""
    design = run.run.design
    shortest = min((arm.delay_ms for arm in run.arms), default=0)
    parts = [
        design.suites if design else run.title.lower(),
        f"{shortest:g} ms of delay" if shortest else "",
        "" if run.is_complete else "INCOMPLETE",
    ]
    return ", ".join(filter(None, parts))
