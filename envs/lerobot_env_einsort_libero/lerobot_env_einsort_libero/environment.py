"""Our LIBERO under the keys and habits of `lerobot-eval`."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from lerobot.envs.utils import NEW_ROLLOUT_OPTION

from einsort_vla.runtime.observation import STATE_KEY
from envs.environment import look_seed, scene_seed
from envs.libero.environment import LiberoEnv
from envs.libero.observation import PICTURE_KEYS


class LeRobotLibero(gym.Env[dict[str, Any], np.ndarray]):
    """One task. Each new rollout goes on to the next stored initial state.

    Args:
        suite: LIBERO suite.
        task_id: number of the task.
        first: stored initial state of the first rollout.
        stride: how many states further the next one is.
        look_every: steps from one picture to the next; in between the last one is shown again.
        seed: of the episodes, as `eval/libero.py --seed`.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self, suite: str, task_id: int, first: int, stride: int, look_every: int, seed: int
    ) -> None:
        self._env = LiberoEnv(suite, task_id)
        self.render_mode = "rgb_array"
        self.task = self.task_description = self._env.task.language
        self._max_episode_steps = self._env.max_steps
        inner: Any = self._env.observation_space
        pictures = spaces.Dict({name: inner[key] for name, key in _NAMES.items()})
        self.observation_space = spaces.Dict({"pixels": pictures, "agent_pos": inner[STATE_KEY]})
        self.action_space = self._env.action_space
        self._next, self._stride, self._look_every, self._seed = first, stride, look_every, seed
        self._scene_seed = self._n_steps = 0
        self._seen: dict[str, Any] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The next initial state; at gymnasium's own resets after an episode, what was last seen.

        `seed` has no effect: scene and noise follow from the number of the initial state.
        """
        super().reset(seed=seed)
        if self._seen is not None and not (options or {}).get(NEW_ROLLOUT_OPTION):
            return self._seen, {"is_success": False}
        episode, self._next = self._next, self._next + self._stride
        self._scene_seed = scene_seed(self._seed, self._env.task.task_id, episode)
        self._env.set_scene(self._scene_seed, init_state=episode)
        self._n_steps = 0
        return self._look(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        success, truncated = self._env.advance(action.astype(np.float32))
        self._n_steps += 1
        is_due = self._n_steps % self._look_every == 0 and not (success or truncated)
        seen = self._look() if is_due or self._seen is None else self._seen
        return seen, float(success), success, truncated, {"is_success": success}

    def render(self) -> np.ndarray:
        return self._env.render()

    def close(self) -> None:
        self._env.close()

    def _look(self) -> dict[str, Any]:
        torch.manual_seed(look_seed(self._scene_seed, self._n_steps // self._look_every))
        seen = self._env.observe()
        pictures = {name: seen[key] for name, key in _NAMES.items()}
        self._seen = {"pixels": pictures, "agent_pos": seen[STATE_KEY]}
        return self._seen


_NAMES = {key.rpartition(".")[2]: key for key in PICTURE_KEYS}
