"""One servo step of the hand, shared by the experts: proportional in position and rotation."""

import numpy as np
from scipy.spatial.transform import Rotation

from envs.libero.simulator import Simulator

POSITION_GAIN = 30.0  # below 20 the controller's steady offset (1 to 1.5 cm at 12) misses the grasp
ROTATION_GAIN, ROTATION_LIMIT = 1.0, 0.5
DOWN = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0]))  # the hand points straight down


def servo(
    simulator: Simulator, goal: np.ndarray, close: bool, rotation: Rotation = DOWN
) -> np.ndarray:
    """The action, (7,), towards `goal`, (3,) of the grip site in m, and the hand's `rotation`."""
    turn = rotation_error(simulator, rotation) * ROTATION_GAIN
    opening = simulator.protocol.gripper_open
    action = np.empty(7)
    action[:3] = np.clip((goal - simulator.hand_position()) * POSITION_GAIN, -1, 1)
    action[3:6] = np.clip(turn, -ROTATION_LIMIT, ROTATION_LIMIT)
    action[6] = -opening if close else opening
    return action


def rotation_error(simulator: Simulator, rotation: Rotation) -> np.ndarray:
    """(3,) axis-angle from the present hand to `rotation`, rad."""
    return (rotation * Rotation.from_matrix(simulator.hand_rotation()).inv()).as_rotvec()


def turned_down(yaw: float) -> Rotation:
    """The hand that points down, turned by `yaw` rad about the vertical."""
    return Rotation.from_rotvec([0.0, 0.0, yaw]) * DOWN


def tilted(roll: float, yaw: float = 0.0) -> Rotation:
    """The same, tilted by `roll` rad about the x axis."""
    return Rotation.from_rotvec([roll, 0.0, 0.0]) * turned_down(yaw)
