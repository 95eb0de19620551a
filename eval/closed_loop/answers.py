"""What a simulator asks of a policy, and how it is answered, several at a time.

A look names policy, observation and the seed of the noise, so that an answer depends on nothing
before it: whoever answers can be started again, and be asked again.

Looks of one policy are answered together, always as many as `batch`: where there are fewer, the
last is repeated. An answer then does not depend on who else is asking, and so neither on the
number of workers.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from einsort_vla.runtime.observation import Observation
from envs.environment import look_seed
from eval.run.arms import Variant

if TYPE_CHECKING:  # torch, which a simulator's process does without
    from policies.lerobot_adapter import LeRobotPolicy


@dataclass(frozen=True)
class Facts:
    """What a rollout must know of a policy."""

    chunk_size: int
    n_action_steps: int
    layers: dict[str, int]
    memory_bytes: int | None


@dataclass(frozen=True)
class Look:
    """One look; without an observation, `Facts` are asked for."""

    variant: Variant
    observation: Observation | None = None
    seed: int = 0

    @property
    def kind(self) -> tuple[Variant, bool]:
        """Looks of one kind can be answered together."""
        return self.variant, self.observation is None


Reply = tuple[Literal["chunk", "facts", "error"], Any, float]
"""(chunk_size, action_dim) float32, `Facts` or a message; and milliseconds of computing."""


class Answerer:
    """Holds policies, each loaded when it is first asked for.

    Args:
        batch: looks that a policy answers in one pass.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._policies: dict[Variant, LeRobotPolicy] = {}

    def answer(self, looks: Sequence[Look]) -> list[Reply]:
        """To at most `batch` looks of one kind, in their order."""
        policy = self._policy(looks[0].variant)
        if looks[0].observation is None:
            facts = Facts(
                policy.chunk_size, policy.n_action_steps, policy.layers, policy.memory_bytes
            )
            return [("facts", facts, 0.0)] * len(looks)
        padded = [*looks, *[looks[-1]] * (self.batch - len(looks))]
        observations = [r.observation for r in padded if r.observation is not None]
        started = time.perf_counter()
        chunks = policy.loaded.chunks(observations, [r.seed for r in padded])
        ms = 1000 * (time.perf_counter() - started)
        return [("chunk", chunk, ms) for chunk in chunks[: len(looks)]]

    def _policy(self, variant: Variant) -> "LeRobotPolicy":
        if variant not in self._policies:
            self._policies[variant] = load_variant(variant)
        return self._policies[variant]


def load_variant(variant: Variant) -> "LeRobotPolicy":
    """The policy of a variant, run by what the variant says."""
    from policies.lerobot_adapter import load
    from policies.onnx_adapter import load_onnx

    if variant.bundle is not None:
        return load_onnx(variant.path, variant.bundle)
    return load(variant.path, variant.device, variant.backend)


class AskedPolicy(ABC):
    """A policy that is asked look by look, behind the project's policy protocol."""

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        facts: Facts = self._ask(Look(variant))[0]
        self.chunk_size, self.n_action_steps = facts.chunk_size, facts.n_action_steps
        self.layers, self.memory_bytes = facts.layers, facts.memory_bytes
        self.last_chunk_ms = 0.0
        self.seed = self._n_looks = 0

    @abstractmethod
    def _ask(self, look: Look) -> tuple[Any, float]:
        """What is answered, and milliseconds of computing."""

    def reset(self, seed: int) -> None:
        self.seed, self._n_looks = seed, 0

    def predict_action_chunk(self, observation: Observation) -> np.ndarray:
        chunk = self.chunk_at(observation, self._n_looks)
        self._n_looks += 1
        return chunk

    def chunk_at(self, observation: Observation, n_looks: int) -> np.ndarray:
        """What the policy would answer at look number `n_looks` of the episode."""
        look = Look(self._variant, observation, look_seed(self.seed, n_looks))
        chunk, self.last_chunk_ms = self._ask(look)
        return chunk


class OwnPolicy(AskedPolicy):
    """Answered in the same process."""

    def __init__(self, answerer: Answerer, variant: Variant) -> None:
        self._answerer = answerer
        super().__init__(variant)

    def _ask(self, look: Look) -> tuple[Any, float]:
        _, found, ms = self._answerer.answer([look])[0]
        return found, ms
