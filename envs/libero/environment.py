"""LIBERO as a gymnasium environment with LeRobot's keys."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from einsort_vla.errors import UsageError
from einsort_vla.runtime.observation import STATE_KEY, TASK_KEY
from envs.libero.benchmark import load_initial_states, load_task
from envs.libero.observation import FEATURES, PICTURE_KEYS, observe
from envs.libero.protocol import LiberoProtocol, load_protocol
from envs.libero.simulator import Simulator

_PRINTABLE = "".join(map(chr, range(32, 127)))


class LiberoEnv(gym.Env[dict[str, Any], np.ndarray]):
    """One task of a LIBERO suite on the real simulator.

    The simulator is created at the first reset, in the process that uses it: GL contexts do not
    survive a fork. `step` renders both pictures; a rollout that executes chunks calls `advance`
    for the steps between looks, which renders nothing, and `observe` when the policy looks.

    The options of `reset` are those of `set_scene`; see `envs.environment.Environment`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    features = FEATURES

    def __init__(
        self, suite: str, task_id: int, protocol: LiberoProtocol | None = None,
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
                STATE_KEY: spaces.Box(-np.inf, np.inf, (FEATURES.state_size,), np.float32),
                TASK_KEY: spaces.Text(500, charset=_PRINTABLE),
            }
        )
        self.action_space = spaces.Box(-1, 1, (FEATURES.action_size,), np.float32)
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
        """A settled scene.

        Raises:
            UsageError: an option or a stored state does not exist.
        """
        super().reset(seed=seed)
        options = options or {}
        if unknown := options.keys() - {"init_state", "displacement_m", "picture_seed"}:
            raise UsageError(f"unknown reset option {sorted(unknown)[0]!r}.")
        self.set_scene(seed, **options)
        return self.observe(), {"is_success": False}

    def set_scene(
        self, seed: int | None, init_state: int | None = None, displacement_m: float = 0.0,
        picture_seed: int | None = None,
    ) -> None:  # fmt: skip
        """`reset` without looking; without a seed, the draws of the last scene go on."""
        if seed is not None:
            self.np_random = np.random.default_rng(seed)
        simulator, rng = self.simulator, self.np_random
        if init_state is None:
            simulator.reset(rng)
        else:
            states = load_initial_states(self.task.suite, self.task.task_id)
            if not 0 <= init_state < len(states):
                raise UsageError(
                    f"{self.task.suite} stores {len(states)} states; not {init_state}."
                )
            simulator.set_state(states[init_state], rng)
        self._n_steps, self._picture_shift = 0, {}
        if displacement_m:
            self._displace(displacement_m, picture_seed)
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

    def hold_action(self, last: np.ndarray | None) -> np.ndarray:
        """The arm still, the gripper as it was told last, or open."""
        still = np.zeros(FEATURES.action_size, np.float32)
        still[-1] = self.protocol.gripper_open if last is None else last[-1]
        return still

    def hand_position(self) -> np.ndarray:
        return self.simulator.hand_position()

    def observe(self) -> dict[str, Any]:
        return observe(self.simulator, self._picture_shift)

    def render(self) -> np.ndarray:
        """The agent view, (256, 256, 3) uint8."""
        return self.simulator.render(next(iter(PICTURE_KEYS.values())), size_px=256)

    def close(self) -> None:
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None
