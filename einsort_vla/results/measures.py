"""What was measured of a checkpoint other than episodes: scores of tests, perplexities.

A folder of such a run holds run.json, what its own evaluation keeps to be resumed, and report.json:
the `kind`, one sentence for the whole, and one `Measure` for each number, by arm.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from einsort_vla.atomic import write_text
from einsort_vla.errors import CheckpointError
from einsort_vla.results.folder import REPORT

SCHEMA = 1


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; None where none can be given."""

    value: float
    low: float | None
    high: float | None
    n: int  # what it was measured on: questions, tokens


@dataclass(frozen=True)
class Measure:
    """One number of every arm, and how the compressed ones compare with the dense one."""

    name: str  # "accuracy", "perplexity"
    better: Literal["higher", "lower"]
    counted: str  # what `n` counts: "questions", "tokens"
    arms: Mapping[str, Estimate]
    paired: Mapping[str, Estimate]  # by compressed arm, on the same questions or tokens
    paired_as: Literal["difference", "ratio"]
    interval: str  # how the intervals were made, in words
    unit: str = ""  # "%" for shares that are shown in percent


@dataclass(frozen=True)
class Findings:
    """The report of a run that has no episodes."""

    kind: str  # "textvqa", "language"
    verdict: str  # one sentence with the numbers
    complete: bool
    measures: tuple[Measure, ...]
    arms: Mapping[str, Mapping[str, Any]]  # codec, rate_requested and compression of each
    protocol: Mapping[str, Any]  # prompt, data, windows: all that decides the numbers
    notes: tuple[str, ...] = ()  # what a reader must know not to misread them
    provenance: Mapping[str, Any] = field(default_factory=dict)  # versions, machine, commit


def write_findings(findings: Findings, folder: Path) -> None:
    """Write report.json, whole or not at all."""
    content = {"schema": SCHEMA, **asdict(findings)}
    write_text(folder / REPORT, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_findings(folder: Path) -> Findings:
    """Read report.json.

    Raises:
        CheckpointError: there is none, or it is of another kind or schema.
    """
    path = folder / REPORT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if (found := content.pop("schema")) != SCHEMA:
            raise ValueError(f"it has schema {found}")
        measures = tuple(_measure(each) for each in content.pop("measures"))
        notes = tuple(content.pop("notes"))
        return Findings(measures=measures, notes=notes, **content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is no report of schema {SCHEMA} ({type(error).__name__}: {error}); "
            "run the evaluation again."
        ) from error


def _measure(content: dict[str, Any]) -> Measure:
    estimates = {
        key: {arm: Estimate(**each) for arm, each in content[key].items()}
        for key in ("arms", "paired")
    }
    return Measure(**{**content, **estimates})
