"""Episodes as data: one line of episodes.jsonl each."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from einsort_vla.results.log import as_lines, read_log
from einsort_vla.results.motion import Motion
from einsort_vla.results.record import Figure, Name, Record

Outcome = Literal["success", "failure", "error"]
EpisodeKey = tuple["Scene", str]


class Scene(Record, frozen=True):
    """Everything that makes an episode repeatable, but the policy and its delay."""

    suite: Name
    task_id: int
    episode: int  # also the number of the stored initial state
    seed: int
    displacement_m: float = 0.0
    wrong_pictures: bool = False
    stored: bool = True  # False: a fresh random scene instead of the stored initial state


def episode_name(scene: Scene, arm: str) -> str:
    """Of an episode's files, without suffix."""
    return f"{scene.suite}_task{scene.task_id}_episode{scene.episode}_{arm.replace(' ', '-')}"


class EpisodeRecord(Record, frozen=True):
    """One finished episode of one arm."""

    scene: Scene
    arm: Name
    outcome: Outcome
    steps: int
    wall_s: Figure | None = None
    latency_ms: tuple[Figure, ...] = ()  # measured, one a chunk
    error: str | None = None
    actions_sha256: str = ""  # of all executed actions, to tell whether two arms moved alike
    layers: Mapping[str, int] = {}  # coded ones, by backend
    motion: Motion | None = None  # None where no step was made
    # Of the dense arm: relative distance of other arms' actions at what it saw, by arm.
    divergence: Mapping[str, Figure] = {}

    @property
    def key(self) -> EpisodeKey:
        return self.scene, self.arm

    @property
    def is_success(self) -> bool:
        return self.outcome == "success"


def read_episodes(log: Path) -> list[EpisodeRecord]:
    """Episodes of a log in the order they ended, of each key the last.

    A last line that a kill cut short is left out, and so is an episode that ended in an error
    once a later line has it done.

    Raises:
        CheckpointError: a line is no episode; the message has its number.
    """
    records: dict[EpisodeKey, EpisodeRecord] = {}
    for record in read_log(log, EpisodeRecord):
        records.pop(record.key, None)
        records[record.key] = record
    return list(records.values())


def write_episodes(log: Path, records: Iterable[EpisodeRecord]) -> None:
    """A new log of these episodes."""
    log.write_text(as_lines(records), encoding="utf-8")
