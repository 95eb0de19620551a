"""Opens drawers by their handles and turns knobs.

Phases follow from where the hand is to the handle, so that it can take over from any state another
policy left behind. Measured constants; distances in metres.
"""

from typing import Any

import numpy as np

from envs.experts.servo import rotation_error, servo, tilted, turned_down
from envs.libero.simulator import Condition, Simulator

TILT = -1.2  # rad; a hand that points further down meets the handle of the drawer above
STANDOFF, ALIGNED, TILTED = 0.10, 0.012, 0.25
OPEN_GAP, GRIPPED_GAP, SLIPPED_GAP = 0.07, 0.025, 0.012  # a handle is 1.6 cm thick
DEPTH, PULL, CLEAR = 0.006, 0.03, 0.06  # of the grip site behind the handle's middle
AJAR = 0.06  # short of fully open
LEVER, BEHIND, SWEEP = 0.034, 0.045, 0.03
TURNED_BEYOND = -0.3  # x of a knob
ABOVE, FINGER_HEIGHT = 0.10, 0.022  # of the grip site above the knob's axis point


class JointExpert:
    """Moves the joint of a drawer or a knob."""

    def __init__(self, simulator: Simulator, condition: Condition) -> None:
        self.simulator, self.condition = simulator, condition
        self.target = self.goal = condition[1]
        self.phase = "reach"
        self.joint: Any = simulator.model.joint(simulator.joint_of(self.target))


class HandleExpert(JointExpert):
    """Moves a drawer by its handle."""

    def __init__(self, simulator: Simulator, condition: Condition) -> None:
        super().__init__(simulator, condition)
        self.outward = opening_direction(simulator, self.target)
        # The collision geom of the joint's body that stands out furthest.
        model, data = simulator.model, simulator.data
        own = (model.geom_bodyid == self.joint.bodyid[0]) & (model.geom_contype > 0)
        geoms = np.flatnonzero(own)
        self.handle = int(geoms[np.argmax(data.geom_xpos[geoms] @ self.outward)])

    def handle_position(self) -> np.ndarray:
        """(3,) m."""
        return np.array(self.simulator.data.geom_xpos[self.handle])


class DrawerExpert(HandleExpert):
    """Makes ("open", region) hold: grips the handle of a drawer with a tilted hand and pulls."""

    def act(self) -> np.ndarray:
        goal, close = self._decide(self.simulator.hand_position())
        return servo(self.simulator, goal, close, tilted(TILT))

    def attention(self) -> np.ndarray:
        """(2, 3): the handle, and where it is when the drawer is open, m."""
        handle = self.handle_position()
        return np.stack([handle, handle + self._remaining() * self.outward])

    def is_ajar(self) -> bool:
        """Whether it is open widely enough to put something in."""
        return self._remaining() < AJAR

    def _decide(self, hand: np.ndarray) -> tuple[np.ndarray, bool]:
        """Goal of the grip site, (3,), and whether the gripper closes; sets `phase`."""
        handle, outward = self.handle_position(), self.outward
        offset = hand - handle
        distance = float(offset @ outward)
        aside = float(np.linalg.norm(offset - distance * outward))
        if self.simulator.holds(self.condition):
            self.phase = "release" if distance < CLEAR else "done"
            return handle + (distance + PULL) * outward, False
        turn = float(np.linalg.norm(rotation_error(self.simulator, tilted(TILT))))
        gap = self.simulator.finger_gap()
        if aside < 2 * ALIGNED and distance < ALIGNED and turn < 2 * TILTED and gap > SLIPPED_GAP:
            gripped = gap < GRIPPED_GAP
            self.phase = "pull" if gripped else "close"
            return handle + (PULL if gripped else -DEPTH) * outward, True
        self.phase = "reach"
        standoff = max(4 * (aside - ALIGNED) + (turn - TILTED), 2 * (OPEN_GAP - gap))
        return handle + (np.clip(standoff, 0, STANDOFF) - DEPTH) * outward, False

    def _remaining(self) -> float:
        position = self.simulator.data.qpos[self.joint.qposadr[0]]
        return float(np.abs(self.joint.range).max() - abs(position))


class KnobExpert(JointExpert):
    """Makes ("turnon", fixture) hold: pushes the knob's pointer round with closed fingers."""

    def __init__(self, simulator: Simulator, condition: Condition) -> None:
        super().__init__(simulator, condition)
        # A finger's flat side pushes without jamming; near its base the arm cannot turn it there.
        self.yaw = np.pi / 2 if simulator.position(self.target)[0] > TURNED_BEYOND else 0.0

    def act(self) -> np.ndarray:
        goal = self._decide(self.simulator.hand_position())
        return servo(self.simulator, goal, close=True, rotation=turned_down(self.yaw))

    def attention(self) -> np.ndarray:
        """(2, 3): the knob's pointer, and where it is pushed to, m."""
        pointer, ahead = self._pointer()
        return np.stack([pointer, pointer + SWEEP * ahead])

    def _decide(self, hand: np.ndarray) -> np.ndarray:
        """Goal of the grip site, (3,); sets `phase`."""
        pointer, ahead = self._pointer()
        if self.simulator.holds(self.condition):
            self.phase = "done"
            return hand + np.array([0.0, 0.0, ABOVE])
        offset = hand - pointer
        along, low = float(offset @ ahead), offset[2] < FINGER_HEIGHT + 0.015
        across = np.linalg.norm(offset[:2] - along * ahead[:2])
        if low and -2 * BEHIND < along < 0 and across < 0.02:
            self.phase = "push"
            return pointer + SWEEP * ahead + [0.0, 0.0, FINGER_HEIGHT]
        self.phase = "reach"
        start = pointer - BEHIND * ahead + [0.0, 0.0, FINGER_HEIGHT]
        cone = 4 * (np.linalg.norm(hand[:2] - start[:2]) - ALIGNED)
        return start + np.array([0.0, 0.0, np.clip(cone, 0, ABOVE)])

    def _pointer(self) -> tuple[np.ndarray, np.ndarray]:
        """(3,) point on the pointer that is pushed, and (3,) direction in which it turns on."""
        data, joint = self.simulator.data, self.joint
        axis = data.xaxis[joint.id]
        lever = -data.xmat[joint.bodyid[0]].reshape(3, 3)[:, 1]
        return data.xanchor[joint.id] + LEVER * lever, np.cross(axis, lever)


def opening_direction(simulator: Simulator, region: str) -> np.ndarray:
    """(3,) direction in which the drawer of `region` opens; zeros where there is no drawer."""
    name = simulator.joint_of(region)
    if name is None:
        return np.zeros(3)
    joint = simulator.model.joint(name)
    nearer, further = joint.range
    return simulator.data.xaxis[joint.id] * (1.0 if further > -nearer else -1.0)
