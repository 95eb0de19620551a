"""Picks one object up and puts it on or in another.

The phase is derived anew from the simulator at every step, so that it can take over from any
state another policy left behind. Measured constants; distances in metres.
"""

from dataclasses import dataclass

import numpy as np

from envs.experts.articulated import opening_direction
from envs.experts.servo import rotation_error, servo, tilted
from envs.libero.simulator import Condition, Simulator

RELEASE_STEPS = 20  # the gripper needs 10 steps to open
OPEN_GAP, HELD_GAP = 0.07, 0.002
ALIGNED, LOW_ENOUGH, TURNED = 0.012, 0.012, 0.15  # m, m, rad
APPROACH = 0.12  # above the grasp
LEAN, LEAN_STEP = 0.14, 0.04  # what stands below an open drawer is approached and lifted aslant
BELOW_DRAWER = 0.1  # from origin to the middle of the drawer
FREE_OF_DRAWER = 0.20  # from the middle of the drawer
WALLS = 0.06  # a basket, drawer or knob stands up to this far above its region's centre


@dataclass(frozen=True)
class Grip:
    """Where the fingers go, relative to the object's origin, and how high it is carried."""

    offset: tuple[float, float]  # in x and y; (0, 0) is the middle
    depth: float  # of the grip site below the top; the palm is 3.2 cm above that site
    carry_clearance: float  # lowest point of the object above the highest of goal and start
    yaw: float = 0.0  # of the hand about the vertical, rad
    tilt: float = 0.0  # of the hand about the x axis, rad
    close_steps: int = 9
    stride: float = 1.0  # of the hand ahead of itself at most, while it carries
    mirrored: bool = True  # the offset in y, by `side`


@dataclass(frozen=True)
class Release:
    """Where the fingers open."""

    clearance: float | None  # of the object above the goal's origin; None drops from above
    radius: float  # around the goal
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of the goal


BODY = Grip((0.0, 0.0), 0.034, 0.06)
RIM = Grip((0.0, 0.047), 0.018, 0.05)
RIM_BELOW_DRAWER = Grip((0.0, 0.047), 0.018, 0.05, tilt=-0.5)  # clear of the open drawer
# Clear of the drawer's front, which stands askew: fingers across the rim at 125 degrees.
RIM_IN_DRAWER = Grip((-0.027, 0.039), 0.024, 0.05, yaw=0.7)
# The palm lies along the cabinet, clear of the handles above.
RIM_FOR_LOW_DRAWER = Grip((-0.047, 0.0), 0.018, 0.05, yaw=np.pi / 2)
# What is not taken by its middle: mugs by the rim across from the handle, moka pots by the lid's
# knob, and high enough to pass above each other.
GRIPS = {
    "porcelain_mug": Grip((0.0, -0.055), 0.024, 0.05, mirrored=False),
    "white_yellow_mug": Grip((0.0, 0.058), 0.024, 0.05, mirrored=False),
    "moka_pot": Grip((0.0, 0.001), 0.009, 0.12, mirrored=False),
}
# Hardly lifted: it is pushed, not carried.
PLATE_RIM = Grip((0.0, 0.058), 0.010, 0.005, close_steps=15, stride=0.02)
DROP, SET_DOWN, ON_FIXTURE = Release(None, 0.025), Release(0.02, 0.010), Release(0.0, 0.02)
LOW_DRAWER = Release(0.0, 0.02, (0.0, -0.022, 0.0))
UP_THE_RACK = Release(0.0, 0.012, (0.0, -0.03, 0.02))  # its slope, from the lip at the region


class PickAndPlaceExpert:
    """Makes a condition ("on" or "in", target, goal) hold; one instance per episode.

    The target is an object; the goal is an object, or a region of one, a fixture or the table.
    `aside` is the place to put it at, in x and y from the goal's origin; `approach` is how far
    above the grasp the hand comes from, to clear what stands on the way.
    """

    def __init__(
        self,
        simulator: Simulator,
        condition: Condition,
        aside: tuple[float, float] = (0.0, 0.0),
        approach: float = APPROACH,
    ) -> None:
        self.simulator, self.condition, self.approach = simulator, condition, approach
        _, self.target, self.goal = condition
        target, goal = self.target, self.goal
        self.release = _release_for(simulator, target, goal)
        self.shift = np.array([*aside, 0.0]) + self.release.shift
        self.phase = "reach"
        self.grip = _grip_for(simulator, target, goal)
        self.rotation = tilted(self.grip.tilt, self.grip.yaw)
        bottom, top = simulator.vertical_extent(target)
        origin = simulator.position(target)[2]
        self.half_height, self.top, self.bottom = (top - bottom) / 2, top - origin, bottom - origin
        self.ground = min(bottom, simulator.vertical_extent(goal)[0])
        self.goal_top = simulator.vertical_extent(goal)[1]
        if simulator.is_region(goal):
            self.goal_top = min(self.goal_top, simulator.position(goal)[2] + WALLS)
        self.outward = opening_direction(simulator, goal)[:2]
        if _is_low_drawer(simulator, target, goal):
            self.outward = np.zeros(2)
        self.side = _side_for(simulator, target, goal)
        self.start_bottom = bottom
        self.closing = self.releasing = 0
        self.held = simulator.is_gripped(target)  # by the policy that acted before

    def act(self) -> np.ndarray:
        goal, close = self._decide(self.simulator.hand_position())
        return servo(self.simulator, goal, close, self.rotation)

    def attention(self) -> np.ndarray:
        """(2, 3): the object and the place it goes to, m."""
        return np.stack([self.simulator.position(self.target), self._place()])

    def _place(self) -> np.ndarray:
        return self.simulator.position(self.goal) + self.shift

    def _decide(self, hand: np.ndarray) -> tuple[np.ndarray, bool]:
        """Goal of the grip site, (3,), and whether the gripper closes; sets `phase`."""
        s = self.simulator
        target, place, gap = s.position(self.target), self._place(), s.finger_gap()
        dx, dy = self.grip.offset
        dy *= self.side if self.grip.mirrored else 1.0
        grasp = target + np.array([dx, dy, self.top - self.grip.depth])
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
        offset *= min(1.0, self.grip.stride / max(distance, 1e-6))
        hang = hand[2] - (target[2] + self.bottom)  # of the object's lowest point below the hand
        height = max(self.goal_top, self.start_bottom) + self.grip.carry_clearance + hang
        goal = np.array([hand[0], hand[1], height])
        if distance > 0.08:
            self.phase = "carry"
            lifted = np.clip((hand[2] - (height - 0.07)) / 0.05, 0, 1)
            inside = FREE_OF_DRAWER - (target - place)[:2] @ self.outward
            goal[:2] += lifted * offset
            goal[:2] += (1 - lifted) * np.clip(inside, 0, LEAN_STEP) * self.outward
            return goal, True
        self.phase = "place"
        goal[:2] += offset
        release_height = height
        if self.release.clearance is not None:
            release_height = place[2] + self.release.clearance + hang
            goal[2] = release_height + np.clip((distance - self.release.radius) * 3, 0, 0.1)
        low = self.release.clearance is None or hand[2] < release_height + 0.01
        if distance < self.release.radius and (low or self.simulator.holds(self.condition)):
            self.releasing = RELEASE_STEPS
            return goal, False
        return goal, True

    def _reach(
        self, hand: np.ndarray, target: np.ndarray, grasp: np.ndarray, place: np.ndarray, gap: float
    ) -> tuple[np.ndarray, bool]:
        self.phase = "reach"
        s = self.simulator
        if s.holds(self.condition):
            self.phase = "done"
            return np.array([place[0], place[1], max(hand[2], self.goal_top + 0.1)]), False
        lean = np.clip(1.5 * (hand[2] - grasp[2] - 0.025), 0, LEAN) * self.outward
        distance = float(np.linalg.norm(grasp[:2] + lean - hand[:2]))
        turn = float(np.linalg.norm(rotation_error(s, self.rotation)))
        cone = (distance - ALIGNED) * 4 + max(turn - TURNED, 0.0)
        cone = np.clip(cone, 0, max(self.approach, 2 * self.half_height))
        ready = distance < ALIGNED and abs(hand[2] - grasp[2]) < LOW_ENOUGH and gap > OPEN_GAP
        if ready:
            self.phase, self.closing = "close", self.grip.close_steps
            return hand.copy(), True
        return np.array([*(grasp[:2] + lean), grasp[2] + cone]), False


def _is_low_drawer(simulator: Simulator, target: str, goal: str) -> bool:
    """Whether the goal is a drawer that the target does not stand below."""
    height = simulator.position(goal)[2] - simulator.position(target)[2]
    return height < BELOW_DRAWER and bool(opening_direction(simulator, goal).any())


def _grip_for(simulator: Simulator, target: str, goal: str) -> Grip:
    if "plate" in target:
        return PLATE_RIM
    if "bowl" not in target:
        return GRIPS.get(target.rpartition("_")[0], BODY)
    if _is_low_drawer(simulator, target, goal):
        return RIM_FOR_LOW_DRAWER
    if simulator.is_inside_fixture(target):
        return RIM_IN_DRAWER
    return RIM if simulator.joint_of(goal) is None else RIM_BELOW_DRAWER


def _side_for(simulator: Simulator, target: str, goal: str) -> float:
    """The sign of y of the rim to grip: away from cabinets, mostly at negative y."""
    if outward := opening_direction(simulator, goal)[1]:
        return float(np.sign(outward))
    here, there = simulator.position(target), simulator.position(goal)
    if "plate" in target:  # is pulled, not pushed: it would turn away
        return 1.0 if there[1] > here[1] else -1.0
    return -1.0 if here[2] > 0 and min(here[1], there[1]) > 0 else 1.0


def _release_for(simulator: Simulator, target: str, goal: str) -> Release:
    if _is_low_drawer(simulator, target, goal):
        return LOW_DRAWER
    if "rack" in goal:
        return UP_THE_RACK
    if "plate" in target:
        return DROP
    if simulator.is_region(goal) and not simulator.is_movable(goal):
        return ON_FIXTURE
    return SET_DOWN if "bowl" in target or "mug" in target else DROP
