"""Scripted experts with privileged state: one for each kind of goal condition that tasks have.

They make the demonstrations the reference policy is trained on, and are an upper bound in tests.
"""

from typing import Protocol

import numpy as np

from einsort_vla.errors import SimulatorError
from envs.experts.condition import conditions_for, expert_for
from envs.experts.sequence import SequenceExpert
from envs.libero.simulator import Simulator

__all__ = ["WITHOUT_EXPERT", "Expert", "make_expert"]

# The book would have to be turned while it is carried; the microwave's door swings.
WITHOUT_EXPERT = frozenset({("libero_10", 5), ("libero_10", 9)})


class Expert(Protocol):
    """Acts from the simulator's present state alone, so it can take over from any policy.

    `phase` names what it is doing now (`reach`, `close`, `carry`, `place`, `release`, `done`, ...);
    `target` and `goal` name what it moves now, and where to.
    """

    @property
    def phase(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def goal(self) -> str: ...

    def act(self) -> np.ndarray:
        """The action for the present state: (7,), each in [-1, 1]."""
        ...

    def attention(self) -> np.ndarray:
        """(2, 3) points to look at now, m: what it handles, and where that goes."""
        ...


def make_expert(simulator: Simulator) -> Expert:
    """The expert for the simulator's task.

    Raises:
        SimulatorError: it is one of `WITHOUT_EXPERT`, or asks for what no expert does.
    """
    task = simulator.task
    if (task.suite, task.task_id) in WITHOUT_EXPERT:
        raise SimulatorError(f"there is no expert for {task.suite} task {task.task_id}.")
    conditions = conditions_for(simulator)
    if len(conditions) > 1:
        return SequenceExpert(simulator)
    return expert_for(simulator, conditions[0])
