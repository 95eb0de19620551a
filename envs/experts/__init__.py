"""Scripted experts with privileged state: one for each kind of goal condition that tasks have.

They make the demonstrations the reference policy is trained on, and are an upper bound in tests.
"""

from typing import Protocol

import numpy as np

from envs.experts.pick_and_place import PickAndPlaceExpert
from envs.simulator import Simulator

__all__ = ["Expert", "make_expert"]


class Expert(Protocol):
    """Acts from the simulator's present state alone, so it can take over from any policy.

    `phase` names what it is doing now (`reach`, `close`, `carry`, `place`, `release`, `done`, ...);
    `target` and `goal` name what it moves now, and where to.
    """

    phase: str
    target: str
    goal: str

    def act(self) -> np.ndarray:
        """The action for the present state: (7,), each in [-1, 1]."""
        ...


def make_expert(simulator: Simulator) -> Expert:
    """The expert for the simulator's task."""
    return PickAndPlaceExpert(simulator, simulator.target, simulator.goal)
