"""Records the steps of an episode, of which the metrics of motion are computed at its end."""

import numpy as np

from einsort_vla.results.motion import Motion, Steps, motion_of


class MotionRecorder:
    """Takes every control step of one episode.

    Args:
        control_freq_hz: control steps a second of robot time.
        start: (3,) position of the hand before the first step, m.
        gripper: which number of an action is the gripper's; None where there is no gripper.
    """

    def __init__(self, control_freq_hz: float, start: np.ndarray, gripper: int | None) -> None:
        self._hz, self._gripper = control_freq_hz, gripper
        self._hand = [start]
        self._actions: list[np.ndarray] = []
        self._is_seam: list[bool] = []

    def add(self, action: np.ndarray, hand: np.ndarray, is_seam: bool) -> None:
        """One step: the action as commanded, (action_size,), and where the hand, (3,), is then.

        `is_seam` marks the first action of a chunk.
        """
        self._actions.append(np.asarray(action))
        self._hand.append(hand)
        self._is_seam.append(is_seam)

    def result(self) -> Motion | None:
        """None without a step."""
        if not self._actions:
            return None
        actions, hand = np.stack(self._actions), np.stack(self._hand)
        return motion_of(Steps(actions, hand, np.array(self._is_seam), self._hz, self._gripper))
