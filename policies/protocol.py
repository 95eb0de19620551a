"""What every policy offers to a rollout, whatever library it comes from."""

from typing import Protocol, runtime_checkable

import numpy as np

from einsort_vla.runtime.observation import Observation


@runtime_checkable
class Policy(Protocol):
    """A policy that predicts chunks of actions.

    `chunk_size` actions are predicted, the first `n_action_steps` are executed before the policy
    looks again. `layers` counts the coded layers by what multiplies them; `memory_bytes` is what
    its runtime holds once it has run, None where that is not known; `last_chunk_ms` is what the
    last chunk took to compute.
    """

    chunk_size: int
    n_action_steps: int
    layers: dict[str, int]
    memory_bytes: int | None
    last_chunk_ms: float

    def reset(self, seed: int) -> None:
        """Forget the past; `seed` fixes all noise until the next reset."""
        ...

    def predict_action_chunk(self, observation: Observation) -> np.ndarray:
        """(chunk_size, action_dim) float32 actions in the units of the environment."""
        ...
