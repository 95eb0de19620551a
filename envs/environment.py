"""What an environment is to the rest of the project: one task's episodes, and their benchmark.

Rollouts, workers, calibration and requests know these protocols alone. `envs/libero` has them for
LIBERO; a further environment is one module here and one line in `envs/__init__.py`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from msgspec import Meta

LOOKS = 10_000  # more than any episode has
Steps = Annotated[int, Meta(ge=1, le=LOOKS)]


def scene_seed(seed: int, task_id: int, episode: int) -> int:
    """One number for all draws of an episode, the same for every policy that is judged on it."""
    return (seed * 1000 + task_id) * 1000 + episode


def look_seed(scene: int, n_looks: int) -> int:
    """Seed of the flow's noise at a look; those of two episodes never meet."""
    return scene * LOOKS + n_looks


@dataclass(frozen=True)
class EpisodeProtocol:
    """The choices that every environment's protocol makes; an environment may add its own."""

    name: str
    control_freq_hz: Annotated[int, Meta(ge=1, le=1000)]
    n_action_steps: Steps | None  # executed of each chunk; None: as the policy says
    while_thinking: Literal["hold", "next_action"]
    max_steps: Mapping[str, Steps]
    default_max_steps: Steps

    def steps_for(self, suite: str) -> int:
        """The step budget of one suite, settle steps not counted."""
        return self.max_steps.get(suite, self.default_max_steps)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Features:
    """What passes between an environment and a policy; a policy must have been trained with it."""

    pictures: tuple[str, ...]  # LeRobot's keys, `observation.images.*`
    state_size: int
    action_size: int
    gripper: int | None = None  # which number of an action is the gripper's; the rest is the arm's


class Environment(Protocol):
    """The episodes of one task, in the process that runs them."""

    @property
    def protocol(self) -> EpisodeProtocol: ...
    @property
    def features(self) -> Features: ...

    def set_scene(
        self,
        seed: int,
        init_state: int | None = None,
        displacement_m: float = 0.0,
        picture_seed: int | None = None,
    ) -> None:
        """Begin an episode.

        Args:
            seed: of everything that the scene draws.
            init_state: number of a stored initial state; without it the scene is drawn.
            displacement_m: move every object by up to this far in x and y.
            picture_seed: show objects where a displacement with this seed would have put them.
                The pictures are then wrong while everything else is right: the control that
                tells whether a policy looks.

        Raises:
            UsageError: there is no such state.
        """
        ...

    def observe(self) -> dict[str, Any]:
        """What the policy sees now: pictures (H, W, 3) uint8, the state (state_size,) float32 under
        `STATE_KEY`, and the task's sentence under `TASK_KEY`."""
        ...

    def advance(self, action: np.ndarray) -> tuple[bool, bool]:
        """One control period with an action, (action_size,): (success, out of steps)."""
        ...

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """(action_size,) float32: stand still after the action `last`; None at the start."""
        ...

    def hand_position(self) -> np.ndarray:
        """(3,) metres: the point of the robot whose path is measured."""
        ...

    def render(self) -> np.ndarray:
        """(H, W, 3) uint8, for a video."""
        ...

    def take_task(self, suite: str, task_id: int) -> bool:
        """Go over to another task; False if that needs a new environment."""
        ...

    def close(self) -> None: ...


class Benchmark[P: EpisodeProtocol](Protocol):
    """One kind of environment: its suites of tasks, its protocols, what its policies must fit.

    Workers on other machines get it pickled, so it holds no simulator.
    """

    @property
    def name(self) -> str:
        """As people write it."""
        ...

    @property
    def features(self) -> Features: ...

    @property
    def packages(self) -> tuple[str, ...]:
        """Whose versions decide what happens in an episode."""
        ...

    @property
    def max_displacement_m(self) -> float:
        """How far objects can be moved; 0 where they cannot."""
        ...

    def n_tasks(self, suite: str) -> int:
        """Raises UsageError for an unknown suite."""
        ...

    def sentence(self, suite: str, task_id: int) -> str:
        """What a policy is told to do; raises UsageError for an unknown task."""
        ...

    def n_states(self, suite: str, task_id: int) -> int:
        """How many initial states are stored for a task."""
        ...

    def load_protocol(self, name_or_path: str | None = None) -> P:
        """A protocol by its name, or of a file; None asks for the benchmark's own.

        Raises:
            UsageError: there is none of that name, or the file cannot be used.
        """
        ...

    def make(self, suite: str, task_id: int, protocol: P) -> Environment:
        """An environment for one task."""
        ...


def environment_for(
    env: Environment | None,
    benchmark: Benchmark[Any],
    task: tuple[str, int],
    protocol: EpisodeProtocol,
) -> Environment:
    """`env` where it can take the task over; otherwise a new one in its place."""
    if env is not None:
        if env.take_task(*task):
            return env
        env.close()
    return benchmark.make(*task, protocol)
