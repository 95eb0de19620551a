"""LIBERO as a gymnasium environment with LeRobot's keys."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from einsort_vla.errors import UsageError
from envs.libero.benchmark import load_initial_states, load_task
from envs.libero.observation import PICTURE_KEYS, STATE_KEY, TASK_KEY, observe
from envs.libero.protocol import Protocol, load_protocol
from envs.libero.simulator import Simulator

ACTION_DIM, STATE_DIM = 7, 8
_PRINTABLE = "".join(map(chr, range(32, 127)))


class LiberoEnv(gym.Env[dict[str, Any], np.ndarray]):
    """One task of a LIBERO suite on the real simulator.

    The simulator is created at the first reset, in the process that uses it: GL contexts do not
    survive a fork. `step` renders both pictures; a rollout that executes chunks calls `advance`
    for the steps between looks, which renders nothing, and `observe` when the policy looks.

    Reset options:
        init_state: number of a stored initial state; without it the scene is drawn with the seed.
        displacement_m: move every object by up to this far in x and y, drawn with the seed.
        picture_seed: show objects where a displacement with this seed would have put them. The
            pictures are then wrong while everything else is right: the control that tells
            whether a policy looks.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self, suite: str, task_id: int, protocol: Protocol | None = None,
        render_mode: str | None = None,
    ) -> None:  # fmt: skip
        self.protocol = protocol or load_protocol()
        self.task = load_task(suite, task_id)
        self.render_mode = render_mode
        self.max_steps = self.protocol.steps_for(suite)
        size = self.protocol.shown_px
        picture = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                **dict.fromkeys(PICTURE_KEYS, picture),
                STATE_KEY: spaces.Box(-np.inf, np.inf, (STATE_DIM,), np.float32),
                TASK_KEY: spaces.Text(500, charset=_PRINTABLE),
            }
        )
        self.action_space = spaces.Box(-1, 1, (ACTION_DIM,), np.float32)
        self._simulator: Simulator | None = None
        self._n_steps = 0
        self._picture_shift: dict[str, np.ndarray] = {}

    @property
    def simulator(self) -> Simulator:
        """The simulator, with privileged state for experts."""
        if self._simulator is None:
            self._simulator = Simulator(self.task, self.protocol)
        return self._simulator

    def take_task(self, suite: str, task_id: int) -> bool:
        """Go over to another task with the same simulator, if its scene is built alike.

        The next episode is then exactly that of a new environment; the ten tasks of libero_goal
        share one scene.
        """
        task = load_task(suite, task_id)
        if task != self.task and not self.simulator.take_task(task):
            return False
        self.task = task
        return True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A settled scene; see the class for the options.

        Raises:
            UsageError: an option or a stored state does not exist.
        """
        super().reset(seed=seed)
        self.set_scene(options or {})
        return self.observe(), {"is_success": False}

    def set_scene(self, options: dict[str, Any]) -> None:
        """`reset` without looking."""
        unknown = options.keys() - {"init_state", "displacement_m", "picture_seed"}
        if unknown:
            raise UsageError(f"unknown reset option {sorted(unknown)[0]!r}.")
        simulator, rng = self.simulator, self.np_random
        if (number := options.get("init_state")) is None:
            simulator.reset(rng)
        else:
            states = load_initial_states(self.task.suite, self.task.task_id)
            if not 0 <= number < len(states):
                raise UsageError(f"{self.task.suite} stores {len(states)} states; not {number}.")
            simulator.set_state(states[number], rng)
        self._n_steps, self._picture_shift = 0, {}
        if distance := options.get("displacement_m"):
            self._displace(distance, options.get("picture_seed"))
        simulator.settle()

    def _displace(self, distance_m: float, picture_seed: int | None) -> None:
        simulator, shown = self.simulator, None
        if picture_seed is not None:
            with simulator.restored():
                simulator.displace(np.random.default_rng(picture_seed), distance_m)
                shown = simulator.object_places()
        simulator.displace(self.np_random, distance_m)
        if shown is not None:
            now = simulator.object_places()
            self._picture_shift = {name: shown[name] - now[name] for name in now}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """One control period; the reward is 1 at success."""
        terminated, truncated = self.advance(action)
        info = {"is_success": terminated}
        return self.observe(), float(terminated), terminated, truncated, info

    def advance(self, action: np.ndarray) -> tuple[bool, bool]:
        """One control period without pictures: (success, out of steps)."""
        self.simulator.step(np.clip(action, -1, 1))
        self._n_steps += 1
        success = self.simulator.is_success()
        return success, self._n_steps >= self.max_steps and not success

    def observe(self) -> dict[str, Any]:
        """What the policy sees now; renders both pictures."""
        return observe(self.simulator, self._picture_shift)

    def render(self) -> np.ndarray:
        """The agent view, (256, 256, 3) uint8."""
        return self.simulator.render(next(iter(PICTURE_KEYS.values())), size_px=256)

    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None
