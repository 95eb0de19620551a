"""Which episode is run next, and which are finished; knows no processes."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from einsort_vla.results.episode import EpisodeKey, EpisodeRecord, Scene
from eval.run.arms import Arm

ATTEMPTS = 2  # an episode whose worker died is run once more; then it is an error


@dataclass(frozen=True)
class Job:
    """One episode to run."""

    scene: Scene
    arm: Arm
    probed: tuple[Arm, ...] = ()  # arms to be asked, too, at what this one sees

    @property
    def key(self) -> EpisodeKey:
        return self.scene, self.arm.name

    @property
    def task(self) -> tuple[str, int]:
        """What a simulator is built for."""
        return self.scene.suite, self.scene.task_id


class Schedule:
    """The episodes of a run that are still to be done.

    All arms of a scene follow one another, so that whatever a run is stopped by leaves few half
    pairs. A worker is given episodes of the task it has built a simulator for, as long as there
    are any.

    Args:
        scenes: in the order they are to be run.
        arms: every one of them meets every scene.
        finished: keys of episodes that need not be run.
    """

    def __init__(
        self, scenes: Sequence[Scene], arms: Sequence[Arm], finished: Sequence[EpisodeKey]
    ) -> None:
        done = set(finished)
        self._arms = tuple(arms)
        jobs = [Job(scene, arm, self._probed(arm)) for scene in scenes for arm in arms]
        self._waiting = [job for job in jobs if job.key not in done]
        self._lost: Counter[EpisodeKey] = Counter()

    def __len__(self) -> int:
        """Episodes that nobody has taken."""
        return len(self._waiting)

    def take(self, task: tuple[str, int] | None, taken: Sequence[tuple[str, int]]) -> Job | None:
        """The next episode for a worker; None if nothing is left.

        Args:
            task: that the worker has a simulator for.
            taken: the tasks of the other workers' simulators, which are left to them if possible.
        """
        if not self._waiting:
            return None
        own = next((job for job in self._waiting if job.task == task), None)
        free = next((job for job in self._waiting if job.task not in taken), None)
        job = own or free or self._waiting[0]
        self._waiting.remove(job)
        return job

    def lose(self, job: Job, reason: str) -> EpisodeRecord | None:
        """The worker died: the episode is put back, or, the second time, it is an error."""
        self._lost[job.key] += 1
        if self._lost[job.key] < ATTEMPTS:
            self._waiting.insert(0, job)
            return None
        return EpisodeRecord(job.scene, job.arm.name, "error", 0, 0.0, error=reason)

    def drop(self, arm: str) -> None:
        """No further episodes of an arm whose verdict is known."""
        self._waiting = [job for job in self._waiting if job.arm.name != arm]

    def _probed(self, arm: Arm) -> tuple[Arm, ...]:
        """A delay changes what is seen, not what is answered: without one is enough."""
        if arm.delay_ms:
            return ()
        return tuple(other for other in self._arms if other.reference == arm.name)
