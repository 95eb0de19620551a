"""Pushes drawers shut.

The phase follows from where the hand is to the handle, so that it can take over from any state
another policy left behind. Measured constants; distances in metres.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from envs.experts.articulated import HandleExpert
from envs.experts.servo import rotation_error, servo, turned_down
from envs.libero.simulator import Condition, Simulator

TILT, TILTED = 0.8, 0.3  # rad; with the palm along the drawer, clear of the handles above
STANDOFF, ALIGNED = 0.09, 0.03
ABOVE, PUSH = 0.14, 0.05


class CloseDrawerExpert(HandleExpert):
    """Makes ("close", region) hold: pushes the drawer's handle with closed fingers."""

    def __init__(self, simulator: Simulator, condition: Condition) -> None:
        super().__init__(simulator, condition)
        lean = Rotation.from_rotvec([-TILT * self.outward[1], 0.0, 0.0])
        self.rotation = lean * turned_down(np.pi / 2)

    def act(self) -> np.ndarray:
        goal = self._decide(self.simulator.hand_position())
        return servo(self.simulator, goal, close=True, rotation=self.rotation)

    def attention(self) -> np.ndarray:
        """(2, 3): the handle, and where it is pushed to, m."""
        handle = self.handle_position()
        return np.stack([handle, handle - PUSH * self.outward])

    def _decide(self, hand: np.ndarray) -> np.ndarray:
        """Goal of the grip site, (3,); sets `phase`."""
        handle = self.handle_position()
        offset = hand - handle
        distance = float(offset @ self.outward)
        aside = np.linalg.norm(offset - distance * self.outward)
        turn = np.linalg.norm(rotation_error(self.simulator, self.rotation))
        if aside < ALIGNED and distance > -ALIGNED and turn < TILTED:
            self.phase = "push"
            return handle - PUSH * self.outward
        self.phase = "reach"
        start = handle + STANDOFF * self.outward
        height = 4 * (np.linalg.norm((hand - start)[:2]) - ALIGNED)
        return start + np.array([0.0, 0.0, np.clip(height, 0, ABOVE)])
