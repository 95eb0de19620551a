"""Picks one object up and puts it on or in another.

The phase is derived anew from the simulator at every step, so that it can take over from any
state another policy left behind. Measured constants; distances in metres.
"""

from dataclasses import dataclass

import numpy as np

from envs.simulator import Simulator

POSITION_GAIN = 30.0  # below 20 the controller's steady offset (1 to 1.5 cm at 12) misses the grasp
ROTATION_GAIN = 1.0
UPRIGHT = np.diag([1.0, -1.0, -1.0])  # hand pointing straight down
CLOSE_STEPS, RELEASE_STEPS = 9, 20  # the gripper needs 10 steps to open
OPEN_GAP, HELD_GAP = 0.07, 0.002
ALIGNED, LOW_ENOUGH = 0.012, 0.012


@dataclass(frozen=True)
class Grip:
    """Where the fingers go, relative to the object's origin, and how the goal is approached."""

    offset: tuple[float, float]  # in x and y, mirrored in y by `side`; (0, 0) is the middle
    depth: float  # of the grip site below the top; the palm is 3.2 cm above that site
    carry_clearance: float  # lowest point of the object above the highest of goal and start
    release_clearance: float | None  # the same above the goal's origin; None drops from above
    release_radius: float
    yaw: float = 0.0  # of the hand about the vertical, rad


BODY = Grip((0.0, 0.0), 0.034, 0.06, None, 0.025)
RIM = Grip((0.0, 0.047), 0.018, 0.05, 0.02, 0.010)
# Clear of the drawer's front, which stands askew: fingers across the rim at 125 degrees.
RIM_IN_DRAWER = Grip((-0.027, 0.039), 0.024, 0.05, 0.02, 0.010, yaw=0.7)


class PickAndPlaceExpert:
    """Moves the object `target` onto or into the object `goal`; one instance per episode."""

    def __init__(self, simulator: Simulator, target: str, goal: str) -> None:
        self.simulator, self.target, self.goal = simulator, target, goal
        self.phase = "reach"
        self.grip = _grip_for(simulator, target)
        bottom, top = simulator.vertical_extent(target)
        origin = simulator.position(target)[2]
        self.half_height, self.top, self.bottom = (top - bottom) / 2, top - origin, bottom - origin
        self.ground = min(bottom, simulator.vertical_extent(goal)[0])
        self.goal_top = simulator.vertical_extent(goal)[1]
        self.side = -1.0 if origin > 0 and simulator.position(target)[1] > 0.0 else 1.0
        self.start_bottom = bottom
        self.closing = self.releasing = 0
        self.held = False

    def act(self) -> np.ndarray:
        """The action for the present state: (7,), each in [-1, 1]."""
        hand = self.simulator.hand_position()
        goal, close = self._decide(hand)
        action = np.zeros(7)
        action[:3] = np.clip((goal - hand) * POSITION_GAIN, -1, 1)
        action[3:6] = np.clip(
            _axis_angle_to_upright(self.simulator, self.grip.yaw) * ROTATION_GAIN, -0.5, 0.5
        )
        opening = self.simulator.protocol.gripper_open
        action[6] = -opening if close else opening
        return action

    def _decide(self, hand: np.ndarray) -> tuple[np.ndarray, bool]:
        """Goal of the grip site, (3,), and whether the gripper closes; sets `phase`."""
        s = self.simulator
        target, place, gap = s.position(self.target), s.position(self.goal), s.finger_gap()
        dx, dy = self.grip.offset
        grasp = target + np.array([dx, self.side * dy, self.top - self.grip.depth])
        grasp[2] = max(grasp[2], self.ground + 0.012)
        self.held = self.held and self._in_hand(hand, grasp, gap)
        if self.releasing:
            self.phase, self.held = "release", False
            self.releasing -= 1
            lift = 0.0 if self.releasing > RELEASE_STEPS // 2 else 0.1
            return hand + np.array([0.0, 0.0, lift]), False
        if self.closing:
            self.phase = "close"
            self.closing -= 1
            if not self.closing:
                self.held = self._in_hand(hand, grasp, gap)
            return np.array([hand[0], hand[1], grasp[2]]), True
        if self.held:
            return self._carry(hand, target, place)
        return self._reach(hand, target, grasp, place, gap)

    def _in_hand(self, hand: np.ndarray, grasp: np.ndarray, gap: float) -> bool:
        near = np.linalg.norm(grasp[:2] - hand[:2]) < 0.04 and abs(hand[2] - grasp[2]) < 0.05
        return bool(near and gap > HELD_GAP)

    def _carry(
        self, hand: np.ndarray, target: np.ndarray, place: np.ndarray
    ) -> tuple[np.ndarray, bool]:
        offset = place[:2] - target[:2]
        distance = float(np.linalg.norm(offset))
        hang = hand[2] - (target[2] + self.bottom)  # of the object's lowest point below the hand
        height = max(self.goal_top, self.start_bottom) + self.grip.carry_clearance + hang
        goal = np.array([hand[0], hand[1], height])
        if distance > 0.08:
            self.phase = "carry"
            lifted = np.clip((hand[2] - (height - 0.07)) / 0.05, 0, 1)
            goal[:2] += lifted * offset
            return goal, True
        self.phase = "place"
        goal[:2] += offset
        release_height = height
        if self.grip.release_clearance is not None:
            release_height = place[2] + self.grip.release_clearance + hang
            goal[2] = release_height + np.clip((distance - self.grip.release_radius) * 3, 0, 0.1)
        low = self.grip.release_clearance is None or hand[2] < release_height + 0.01
        if distance < self.grip.release_radius and low:
            self.releasing = RELEASE_STEPS
            return goal, False
        return goal, True

    def _reach(
        self, hand: np.ndarray, target: np.ndarray, grasp: np.ndarray, place: np.ndarray, gap: float
    ) -> tuple[np.ndarray, bool]:
        self.phase = "reach"
        if np.linalg.norm(target[:2] - place[:2]) < 0.03 and target[2] < self.goal_top + 0.05:
            self.phase = "done"
            return np.array([place[0], place[1], max(hand[2], self.goal_top + 0.1)]), False
        distance = float(np.linalg.norm(grasp[:2] - hand[:2]))
        cone = np.clip((distance - ALIGNED) * 4, 0, max(0.12, 2 * self.half_height))
        ready = distance < ALIGNED and abs(hand[2] - grasp[2]) < LOW_ENOUGH and gap > OPEN_GAP
        if ready:
            self.phase, self.closing = "close", CLOSE_STEPS
            return hand.copy(), True
        return np.array([grasp[0], grasp[1], grasp[2] + cone]), False


def _grip_for(simulator: Simulator, target: str) -> Grip:
    if "bowl" not in target:
        return BODY
    return RIM_IN_DRAWER if simulator.is_inside_fixture(target) else RIM


def _axis_angle_to_upright(simulator: Simulator, yaw: float) -> np.ndarray:
    """(3,) rotation from the present hand to one that points down, turned by `yaw`."""
    from robosuite.utils.transform_utils import mat2quat, quat2axisangle

    x, y, z, w = mat2quat(_about_vertical(yaw) @ UPRIGHT @ simulator.hand_rotation().T)
    quaternion = np.array([x, y, z, w])
    return quat2axisangle(quaternion if w >= 0 else -quaternion)


def _about_vertical(yaw: float) -> np.ndarray:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
