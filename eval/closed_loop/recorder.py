"""A policy that keeps what it saw."""

import numpy as np

from einsort_vla.lerobot import Observation
from policies.protocol import Policy


class Recorder:
    """A policy that acts as another one and keeps what it was shown."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.chunk_size, self.n_action_steps = policy.chunk_size, policy.n_action_steps
        self.layers = policy.layers
        self.last_chunk_ms = 0.0
        self.seen: list[Observation] = []

    def reset(self, seed: int) -> None:
        self._policy.reset(seed)

    def predict_action_chunk(self, observation: Observation) -> np.ndarray:
        self.seen.append(observation)
        chunk = self._policy.predict_action_chunk(observation)
        self.last_chunk_ms = self._policy.last_chunk_ms
        return chunk

    def select_action(self, observation: Observation) -> np.ndarray:
        self.seen.append(observation)
        return self._policy.select_action(observation)
