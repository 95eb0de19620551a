"""How the arm moves in an episode: every metric of it, each registered here and nowhere else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from einsort_vla.results.measures import PairedAs
from einsort_vla.results.record import LARGEST, Figure

Motion = Mapping[str, Figure]
"""A number for each metric, by its key."""


@dataclass(frozen=True)
class Steps:
    """The control steps of one episode.

    Lengths are in metres; actions are as they were commanded, in the controller's units of -1 to 1.
    """

    actions: np.ndarray  # (n, action_dim)
    hand: np.ndarray  # (n + 1, 3) positions, the first before any step
    is_seam: np.ndarray  # (n,) bool, at the first action of a chunk
    control_freq_hz: float
    gripper: int | None  # which number of an action is the gripper's, if there is one

    @property
    def arm(self) -> np.ndarray:
        """(n, action_dim) actions without the gripper's number."""
        if self.gripper is None:
            return self.actions
        return np.delete(self.actions, self.gripper, axis=-1)


Compute = Callable[[Steps], float]


@dataclass(frozen=True)
class Metric:
    """One number of an episode, and all that anybody needs to show it."""

    key: str
    title: str
    meaning: str  # in one line
    compared: PairedAs  # pairs of episodes; a difference where the number can be 0
    compute: Compute  # of at least one step
    digits: int = 2
    is_headline: bool = False  # has a column of its own in the table of arms


METRICS: dict[str, Metric] = {}


def metric(
    key: str,
    title: str,
    meaning: str,
    compared: PairedAs,
    digits: int = 2,
    is_headline: bool = False,
) -> Callable[[Compute], Compute]:
    """Register the function below as a metric; see `Metric`."""

    def register(compute: Compute) -> Compute:
        METRICS[key] = Metric(key, title, meaning, compared, compute, digits, is_headline)
        return compute

    return register


def motion_of(steps: Steps) -> Motion | None:
    """All metrics of an episode that are numbers of a size to count with; None without a step."""
    if not len(steps.actions):
        return None
    with np.errstate(all="ignore"):
        found = {key: float(each.compute(steps)) for key, each in METRICS.items()}
    return {key: value for key, value in found.items() if abs(value) <= LARGEST}


@metric("path_m", "Path", "length of the hand's path in the episode", "ratio")
def _path(steps: Steps) -> float:
    return np.linalg.norm(np.diff(steps.hand, axis=0), axis=1).sum()


@metric("jerk_m_s3", "Jerk", "root mean square of the third derivative of the hand", "ratio",
        is_headline=True)  # fmt: skip
def _jerk(steps: Steps) -> float:
    jerk = np.diff(steps.hand, n=3, axis=0) * steps.control_freq_hz**3
    return np.sqrt((jerk**2).sum(1).mean()) if len(jerk) else 0.0


@metric("duration_s", "Duration", "robot time to success or to the end of the budget", "ratio")
def _duration(steps: Steps) -> float:
    return len(steps.actions) / steps.control_freq_hz


@metric("gripper_toggles", "Gripper toggles", "changes between open and closed in an episode",
        "difference")  # fmt: skip
def _toggles(steps: Steps) -> float:
    if steps.gripper is None:
        return 0
    opening = np.sign(steps.actions[:, steps.gripper])
    return np.count_nonzero(np.diff(opening[opening != 0]))


@metric("seam_jump", "Seam jump", "jump of the action where a new chunk begins", "difference", 4)
def _seam_jump(steps: Steps) -> float:
    jumps = np.linalg.norm(np.diff(steps.arm, axis=0), axis=1)[steps.is_seam[1:]]
    return jumps.mean() if len(jumps) else 0.0


@metric("saturation", "Saturation", "share of commanded numbers outside -1 to 1", "difference", 4)
def _saturation(steps: Steps) -> float:
    return (np.abs(steps.arm) > 1).mean()
