"""Which expert brings a goal condition about."""

from einsort_vla.errors import SimulatorError
from envs.experts.articulated import DrawerExpert, KnobExpert
from envs.experts.closing import CloseDrawerExpert
from envs.experts.pick_and_place import APPROACH, PickAndPlaceExpert
from envs.libero.simulator import Condition, Simulator

ConditionExpert = CloseDrawerExpert | DrawerExpert | KnobExpert | PickAndPlaceExpert


def conditions_for(simulator: Simulator) -> list[Condition]:
    """The task's goal conditions, each after what it needs first: an open drawer."""
    conditions = []
    for condition in simulator.goal_conditions:
        if len(condition) == 3 and not simulator.holds(condition):
            needed = ("open", condition[2])
            if simulator.joint_of(condition[2]) and not simulator.holds(needed):
                conditions.append(needed)
        conditions.append(condition)
    return conditions


def expert_for(
    simulator: Simulator,
    condition: Condition,
    aside: tuple[float, float] = (0.0, 0.0),
    approach: float = APPROACH,
) -> ConditionExpert:
    """The expert for one condition; the rest is for PickAndPlaceExpert.

    Raises:
        SimulatorError: there is none for its predicate.
    """
    if condition[0] == "open":
        return DrawerExpert(simulator, condition)
    if condition[0] == "close":
        return CloseDrawerExpert(simulator, condition)
    if condition[0] == "turnon":
        return KnobExpert(simulator, condition)
    if condition[0] in ("on", "in"):
        return PickAndPlaceExpert(simulator, condition, aside, approach)
    raise SimulatorError(f"there is no expert for the goal condition {' '.join(condition)}.")
