"""run.json: what a run says of itself before it has found anything."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from msgspec import Meta

from einsort_vla.errors import CheckpointError
from einsort_vla.results.arms import ArmFacts
from einsort_vla.results.record import Amount, Count, Margin, Record, read_record, write_record

MAX_ARMS = 512  # of one run: a page has a row and curves for each
CLOSED_LOOP = "closed_loop"
RUN, LOG, VIDEOS = "run.json", "episodes.jsonl", "videos"  # what a run writes
REPORT, PAGE, CARD = "report.json", "report.html", "report.md"  # what is made of it


class Scenes(Record, frozen=True, kw_only=True):
    """Where the episodes of a run start."""

    initial_states: str  # "stored"
    displacement_m: Amount
    wrong_pictures: bool
    seed: Count


class Task(Record, frozen=True, kw_only=True):
    """One task, and which of its initial states are run."""

    suite: str
    task_id: Count
    language: str
    max_steps: Count
    states: tuple[Count, ...]

    @property
    def key(self) -> tuple[str, int]:
        return self.suite, self.task_id


class Design(Record, frozen=True, kw_only=True):
    """What a closed-loop run compares, on what, and how it is judged."""

    environment: str  # as a person calls it
    protocol: Mapping[str, Any]
    scenes: Scenes
    tasks: tuple[Task, ...]
    arms: Annotated[tuple[ArmFacts, ...], Meta(max_length=MAX_ARMS)]
    margin: Margin  # of the success rate, that a compressed arm may lose
    sequential: bool  # an arm ends as soon as it is decided

    @property
    def suites(self) -> str:
        """In words."""
        return ", ".join(dict.fromkeys(task.suite for task in self.tasks))


class Run(Record, frozen=True, kw_only=True):
    """What was run, with which settings and versions, on what."""

    SCHEMA: ClassVar[int] = 1

    kind: str  # `CLOSED_LOOP`, "textvqa", "language"
    script: str  # that runs it again with `config`
    model: str  # the dense policy or model, as it was named
    config: Mapping[str, Any]  # the settings that decide results
    git_commit: str | None
    python: str
    machine: str
    versions: Mapping[str, str | None]
    inputs_sha256: Mapping[str, str]
    design: Design | None = None  # of a closed-loop run

    @property
    def is_calibrated(self) -> bool:
        return bool(self.config.get("calibrate"))


def read_run(folder: Path) -> Run:
    """run.json of a run folder.

    Raises:
        CheckpointError: there is none, or it is damaged or of another schema.
    """
    if not (folder / RUN).is_file():
        raise CheckpointError(
            f"{folder} has no {RUN}, so it is no run folder; name one that the evaluation wrote."
        )
    return read_record(Run, folder / RUN)


def design_of(run: Run, folder: Path) -> Design:
    """The design of the closed-loop run in this folder.

    Raises:
        CheckpointError: it is a run of another kind.
    """
    if run.design is None:
        raise CheckpointError(f"{folder} is a run of the kind {run.kind!r}, which has no episodes.")
    return run.design


def write_run(folder: Path, run: Run) -> None:
    """Write run.json, whole or not at all."""
    write_record(folder / RUN, run)
