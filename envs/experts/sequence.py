"""Satisfies a task's goal conditions one after another, always in the same order.

Which conditions hold is asked of the simulator at every step, so that the expert can take over
from any state another policy left behind. Measured constants; distances in metres.
"""

import numpy as np

from envs.experts.articulated import DrawerExpert
from envs.experts.condition import ConditionExpert, conditions_for, expert_for
from envs.experts.pick_and_place import OPEN_GAP, PickAndPlaceExpert
from envs.libero.simulator import Condition, Simulator

ORDER = {"turnon": 0, "open": 0, "on": 1, "in": 1, "close": 2}  # the rest as in the sentence
BUSY = ("close", "carry", "place", "pull", "push", "release")
WITHDRAW_WITHIN, WITHDRAW_TO = 0.10, 0.13  # beside and above the last place
APPROACH = 0.17  # above cartons, which the hand passes on its way to a flat box
SIDE_BY_SIDE = {  # two things at one goal, from its middle
    "in": ((0.03, 0.0), (-0.03, 0.0)),
    "on": ((0.048, 0.0), (-0.048, 0.0)),
}


class SequenceExpert:
    """Acts as the expert of the first condition that does not hold yet."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.goal_conditions = simulator.goal_conditions
        self.experts = _experts_for(simulator)
        self.current = self.experts[0]
        self.withdrawing = False

    @property
    def phase(self) -> str:
        return "withdraw" if self.withdrawing else self.current.phase

    @property
    def target(self) -> str:
        return self.current.target

    @property
    def goal(self) -> str:
        return self.current.goal

    def attention(self) -> np.ndarray:
        return self.current.attention()

    def act(self) -> np.ndarray:
        finished = [expert for expert in self.experts if self._is_finished(expert)]
        waiting = [expert for expert in self.experts if expert not in finished]
        self.current = (waiting or self.experts[-1:])[0]
        action = self.current.act()
        self.withdrawing = self.current.phase == "reach" and any(map(self._is_at, finished))
        if self.withdrawing:
            action[:] = 0.0
            action[2] = float(self.simulator.finger_gap() > OPEN_GAP)
            action[6] = self.simulator.protocol.gripper_open
        return action

    def _is_finished(self, expert: ConditionExpert) -> bool:
        if expert is self.current and expert.phase in BUSY:
            return False
        if isinstance(expert, DrawerExpert) and expert.condition not in self.goal_conditions:
            return expert.is_ajar()
        return self.simulator.holds(expert.condition)

    def _is_at(self, expert: ConditionExpert) -> bool:
        """Whether the hand is still at the place of what it has done."""
        if not isinstance(expert, PickAndPlaceExpert):
            return False
        away = self.simulator.hand_position() - expert.attention()[1]
        return bool(np.linalg.norm(away[:2]) < WITHDRAW_WITHIN and away[2] < WITHDRAW_TO)


def _experts_for(simulator: Simulator) -> list[ConditionExpert]:
    conditions = sorted(conditions_for(simulator), key=lambda condition: ORDER[condition[0]])
    return [
        expert_for(simulator, each, aside=_aside(each, conditions), approach=APPROACH)
        for each in conditions
    ]


def _aside(condition: Condition, conditions: list[Condition]) -> tuple[float, float]:
    together = [other for other in conditions if other[2:] == condition[2:]]
    if len(condition) < 3 or len(together) < 2:
        return (0.0, 0.0)
    return SIDE_BY_SIDE[condition[0]][together.index(condition)]
