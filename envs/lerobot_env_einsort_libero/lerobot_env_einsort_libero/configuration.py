"""The environment as LeRobot configures it."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.envs import EnvConfig
from lerobot.utils.constants import ACTION, OBS_IMAGES, OBS_STATE

from envs.libero.benchmark import n_tasks
from envs.libero.observation import FEATURES
from envs.libero.protocol import load_protocol
from lerobot_env_einsort_libero.environment import LeRobotLibero


@EnvConfig.register_subclass("einsort_libero")
@dataclass
class EinsortLiberoConfig(EnvConfig):
    """LIBERO suites; episode k of a task starts from its stored initial state k."""

    task: str | None = "libero_object"
    task_ids: list[int] | None = None
    fps: int = 20
    # Steps that a policy executes of a chunk. Pictures are made, and torch's noise is seeded as
    # eval/libero.py does it, once in so many steps: the two then run the very same episodes.
    look_every: int = 1
    seed: int = 0
    features: dict[str, PolicyFeature] = field(default_factory=lambda: _features())
    features_map: dict[str, str] = field(
        default_factory=lambda: {
            ACTION: ACTION,
            "agent_pos": OBS_STATE,
            "pixels/image": f"{OBS_IMAGES}.image",
            "pixels/image2": f"{OBS_IMAGES}.image2",
        }
    )

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        return {}

    def create_envs(
        self, n_envs: int, use_async_envs: bool = False
    ) -> dict[str, dict[int, gym.vector.VectorEnv]]:
        """{suite: {task number: environments}}; they run in this process, one after the other."""
        suite = self.task or "libero_object"
        tasks = range(n_tasks(suite)) if self.task_ids is None else self.task_ids
        return {suite: {task: self._vector(suite, task, n_envs) for task in tasks}}

    def _vector(self, suite: str, task: int, n_envs: int) -> gym.vector.VectorEnv:
        makers = [
            partial(LeRobotLibero, suite, task, k, n_envs, self.look_every, self.seed)
            for k in range(n_envs)
        ]
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


def _features() -> dict[str, PolicyFeature]:
    size = load_protocol().shown_px
    picture = PolicyFeature(FeatureType.VISUAL, (size, size, 3))
    return {
        ACTION: PolicyFeature(FeatureType.ACTION, (FEATURES.action_size,)),
        "agent_pos": PolicyFeature(FeatureType.STATE, (FEATURES.state_size,)),
        "pixels/image": picture,
        "pixels/image2": picture,
    }
