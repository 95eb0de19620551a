"""Episodes as data: one line of episodes.jsonl each."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from einsort_vla.errors import CheckpointError
from einsort_vla.results.log import as_lines, read_log
from einsort_vla.results.motion import Motion
from einsort_vla.results.record import Amount, Count, Figure, Name, Record

Outcome = Literal["success", "failure", "error"]
EpisodeKey = tuple["Scene", str]


class Scene(Record, frozen=True):
    """Everything that makes an episode repeatable, but the policy and its delay."""

    suite: Name
    task_id: Count
    episode: Count  # also the number of the stored initial state
    seed: Count
    displacement_m: Amount = 0.0
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
    steps: Count
    wall_s: Amount | None = None
    latency_ms: tuple[Amount, ...] = ()  # measured, one a chunk
    error: str | None = None
    actions_sha256: str = ""  # of all executed actions, to tell whether two arms moved alike
    layers: Mapping[str, int] = {}  # coded ones, by backend
    memory_bytes: Count | None = None  # that the policy's runtime holds
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
    """Episodes of a log in the order they ended, each once.

    A last line that a kill cut short is left out, and so is an episode that ended in an error
    once a later line has it done.

    Raises:
        CheckpointError: a line is no episode, which the message has the number of; or an episode
            that was done is there again and ended otherwise.
    """
    records: dict[EpisodeKey, EpisodeRecord] = {}
    for record in read_log(log, EpisodeRecord):
        earlier = records.pop(record.key, None)
        if earlier and earlier.outcome != "error" and earlier != record:
            raise CheckpointError(
                f"{log} holds {episode_name(*record.key)} twice: once as {earlier.outcome} after "
                f"{earlier.steps} steps, and once as {record.outcome} after {record.steps}. Take "
                "out the line that is not of this run."
            )
        records[record.key] = record
    return list(records.values())


def write_episodes(log: Path, records: Iterable[EpisodeRecord]) -> None:
    """A new log of these episodes."""
    log.write_text(as_lines(records), encoding="utf-8")
