"""What a policy saw, kept in files: one an episode, so that a collection can be resumed."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from envs.observation import TASK_KEY
from policies.protocol import Observation, Policy


class Recorder:
    """A policy that acts as another one and keeps what it was shown."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.chunk_size, self.n_action_steps = policy.chunk_size, policy.n_action_steps
        self.seen: list[Observation] = []

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)

    def predict_action_chunk(self, observation: Observation) -> np.ndarray:
        self.seen.append(observation)
        return self._policy.predict_action_chunk(observation)

    def select_action(self, observation: Observation) -> np.ndarray:
        self.seen.append(observation)
        return self._policy.select_action(observation)


def save_observations(path: Path, observations: Sequence[Observation]) -> None:
    """Write the observations of one episode, atomically."""
    arrays = {
        key: np.stack([observation[key] for observation in observations])
        for key in observations[0]
        if key != TASK_KEY
    }
    unfinished = path.with_name(f"{path.name}.partial")
    save_file(arrays, unfinished, metadata={TASK_KEY: observations[0][TASK_KEY]})
    os.replace(unfinished, path)


def load_observations(paths: Sequence[Path]) -> list[Observation]:
    """The observations of all files, one after the other."""
    found: list[Observation] = []
    for path in paths:
        with safe_open(path, framework="np") as file:
            task = (file.metadata() or {})[TASK_KEY]
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        n = len(next(iter(arrays.values())))
        found += [{**{key: a[k] for key, a in arrays.items()}, TASK_KEY: task} for k in range(n)]
    return found
