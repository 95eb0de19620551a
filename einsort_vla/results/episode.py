"""Episodes as data: one line of episodes.jsonl each."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from einsort_vla.results.log import as_lines, read_lines
from einsort_vla.results.motion import Motion
from einsort_vla.results.reading import record_from

Outcome = Literal["success", "failure", "error"]
EpisodeKey = tuple["Scene", str]


@dataclass(frozen=True)
class Scene:
    """Everything that makes an episode repeatable, but the policy and its delay."""

    suite: str
    task_id: int
    episode: int  # also the number of the stored initial state
    seed: int
    displacement_m: float = 0.0
    wrong_pictures: bool = False
    stored: bool = True  # False: a fresh random scene instead of the stored initial state


def episode_name(scene: Scene, arm: str) -> str:
    """Of an episode's files, without suffix."""
    return f"{scene.suite}_task{scene.task_id}_episode{scene.episode}_{arm.replace(' ', '-')}"


@dataclass(frozen=True)
class EpisodeRecord:
    """One finished episode of one arm."""

    scene: Scene
    arm: str
    outcome: Outcome
    steps: int
    wall_s: float
    latency_ms: tuple[float, ...] = ()  # measured, one a chunk
    error: str | None = None
    actions_sha256: str = ""  # of all executed actions, to tell whether two arms moved alike
    layers: Mapping[str, int] = field(default_factory=dict)  # coded ones, by backend
    motion: Motion | None = None  # None where no step was made
    # Of the dense arm: relative distance of other arms' actions at what it saw, by arm.
    divergence: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> EpisodeKey:
        return self.scene, self.arm

    @property
    def is_success(self) -> bool:
        return self.outcome == "success"


def read_episodes(log: Path) -> list[EpisodeRecord]:
    """Episodes of a log in the order they ended, of each key the last.

    A line that a kill cut short is left out, and so is an episode that ended in an error once a
    later line has it done.

    Raises:
        CheckpointError: a line is of another schema.
    """
    records: dict[EpisodeKey, EpisodeRecord] = {}
    for line in read_lines(log):
        record = record_from(EpisodeRecord, line, log)
        records.pop(record.key, None)
        records[record.key] = record
    return list(records.values())


def write_episodes(log: Path, records: Iterable[EpisodeRecord]) -> None:
    """A new log of these episodes."""
    log.write_text(as_lines(asdict(record) for record in records), encoding="utf-8")
