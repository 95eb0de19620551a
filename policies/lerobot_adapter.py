"""LeRobot policies behind the project's policy protocol."""

import time

import numpy as np

from einsort_vla.layers import count_backends
from einsort_vla.lerobot import LoadedPolicy, Observation, load_policy
from envs.environment import look_seed


class LeRobotPolicy:
    """One LeRobot policy with its saved processors, on CPU or GPU."""

    def __init__(self, loaded: LoadedPolicy) -> None:
        self.loaded, self.module = loaded, loaded.module
        self.chunk_size, self.n_action_steps = loaded.chunk_size, loaded.n_action_steps
        self.layers = count_backends(loaded.module)
        self.memory_bytes: int | None = None
        self._seed = self._n_chunks = 0
        self.last_chunk_ms = 0.0

    def reset(self, seed: int) -> None:
        self.module.reset()
        self._seed, self._n_chunks = seed, 0

    def predict_action_chunk(self, observation: Observation) -> np.ndarray:
        """(chunk_size, action_dim) float32; the flow's noise depends on seed and chunk number only.

        Raises:
            UsageError: the observation lacks a camera the policy was trained with.
        """
        started = time.perf_counter()
        chunk = self.loaded.chunk(observation, look_seed(self._seed, self._n_chunks))
        self.last_chunk_ms = 1000 * (time.perf_counter() - started)
        self._n_chunks += 1
        return chunk


def load(path_or_hub_id: str, device: str = "cpu", backend: str = "decoded") -> LeRobotPolicy:
    """See `einsort_vla.lerobot.load_policy`."""
    return LeRobotPolicy(load_policy(path_or_hub_id, device, backend))
