"""What the reports of both text evaluations have in common."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from einsort_vla.results import ArmFacts, Run
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.report import Report
from einsort_vla.results.statistics import wilson
from einsort_vla.results.verdict import state

ROUNDED = (
    "SmolLM2-135M-Instruct comes rounded to 4 bits in groups of 32 weights. Codes with such groups "
    "give its weights back without error, which says nothing about them; `leader` has one scale a "
    "row and no groups."
)


def text_report(
    kind: str, arms: Sequence[ArmFacts], measures: Sequence[Measure], is_complete: bool,
    protocol: Mapping[str, Any], notes: Sequence[str], run: Run,
) -> Report:  # fmt: skip
    """The report of these measures, with its verdict."""
    report = Report(
        kind=kind, verdict="", complete=is_complete, arms=tuple(arms), measures=tuple(measures),
        protocol=protocol, run=run, notes=tuple(notes),
    )  # fmt: skip
    return replace(report, verdict=state(report))


def share(k: int, n: int) -> Estimate:
    """k of n, with its Wilson interval; of none, 0 without."""
    return Estimate(k / n if n else 0.0, *(wilson(k, n) or (None, None)), n)
