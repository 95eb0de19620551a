"""One episode of one policy in one scene."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from envs.libero import LiberoEnv
from envs.protocol import scene_seed
from policies.protocol import Policy

Outcome = Literal["success", "failure", "error"]


@dataclass(frozen=True)
class Scene:
    """Everything that makes an episode repeatable, but the policy."""

    suite: str
    task_id: int
    episode: int  # also the number of the stored initial state
    seed: int
    displacement_m: float = 0.0
    wrong_pictures: bool = False
    stored: bool = True  # False: a fresh random scene instead of the stored initial state

    def reset_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"init_state": self.episode} if self.stored else {}
        if self.displacement_m:
            options["displacement_m"] = self.displacement_m
            if self.wrong_pictures:
                options["picture_seed"] = self.noise_seed + 1
        return options

    @property
    def noise_seed(self) -> int:
        """One number for the scene's draws and the flow's noise, the same for every arm."""
        return scene_seed(self.seed, self.task_id, self.episode)


@dataclass(frozen=True)
class EpisodeRecord:
    """One line of episodes.jsonl."""

    scene: Scene
    arm: str
    outcome: Outcome
    steps: int
    wall_s: float
    policy_ms: list[float] = field(default_factory=list)  # one a chunk
    error: str | None = None
    actions_sha256: str = ""  # of all executed actions, to tell whether two arms moved alike
    layers: dict[str, int] = field(default_factory=dict)  # coded ones, by what multiplied them

    @property
    def key(self) -> tuple[str, int, int, str]:
        return (self.scene.suite, self.scene.task_id, self.scene.episode, self.arm)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "EpisodeRecord":
        return cls(**{**data, "scene": Scene(**data["scene"])})


def run_episode(
    env: LiberoEnv,
    policy: Policy,
    scene: Scene,
    arm: str,
    on_look: Callable[[np.ndarray], None] | None = None,
) -> EpisodeRecord:
    """Run to success or to the step budget; an exception becomes an `error` record.

    `on_look` is given a rendered frame each time the policy looks.
    """
    started, chunk_ms, steps, actions = time.monotonic(), [], 0, hashlib.sha256()
    outcome: Outcome = "failure"
    message = None
    try:
        env.np_random = np.random.default_rng(scene.noise_seed)
        env.set_scene(scene.reset_options())
        policy.reset(scene.noise_seed)
        done = False
        while not done:
            observation = env.observe()
            if on_look:
                on_look(env.render())
            before = time.perf_counter()
            chunk = policy.predict_action_chunk(observation)[: policy.n_action_steps]
            chunk_ms.append(round(1000 * (time.perf_counter() - before), 2))
            for action in chunk:
                actions.update(action.tobytes())
                success, truncated = env.advance(action)
                steps += 1
                if done := success or truncated:
                    outcome = "success" if success else "failure"
                    break
    except Exception as error:  # an error is neither success nor failure: the run is incomplete
        outcome, message = "error", f"{type(error).__name__}: {error}"
    wall = round(time.monotonic() - started, 2)
    return EpisodeRecord(
        scene, arm, outcome, steps, wall, chunk_ms, message, actions.hexdigest(), policy.layers
    )
