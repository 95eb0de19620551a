"""How the arm moves in an episode: what a success rate does not show."""

import numpy as np

from einsort_vla.results import Motion


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
        self._seams: list[float] = []

    def add(self, action: np.ndarray, hand: np.ndarray, is_seam: bool) -> None:
        """One step: the action as commanded, (action_size,), and where the hand, (3,), is then.

        `is_seam` marks the first action of a chunk.
        """
        if is_seam and self._actions:
            jump = np.linalg.norm(self._arm(action) - self._arm(self._actions[-1]))
            self._seams.append(float(jump))
        self._actions.append(np.asarray(action))
        self._hand.append(hand)

    def result(self) -> Motion | None:
        """None without a step."""
        if not self._actions:
            return None
        hand, actions = np.stack(self._hand), np.stack(self._actions)
        jerk = np.diff(hand, n=3, axis=0) * self._hz**3
        return Motion(
            path_m=float(np.linalg.norm(np.diff(hand, axis=0), axis=1).sum()),
            jerk_m_s3=float(np.sqrt((jerk**2).sum(1).mean())) if len(jerk) else 0.0,
            gripper_toggles=self._toggles(actions),
            seam_jump=float(np.mean(self._seams)) if self._seams else 0.0,
            saturation=float((np.abs(self._arm(actions)) > 1).mean()),
            duration_s=len(actions) / self._hz,
        )

    def _arm(self, actions: np.ndarray) -> np.ndarray:
        """(..., action_size) without the gripper's number."""
        return actions if self._gripper is None else np.delete(actions, self._gripper, axis=-1)

    def _toggles(self, actions: np.ndarray) -> int:
        if self._gripper is None:
            return 0
        opening = np.sign(actions[:, self._gripper])
        return int(np.count_nonzero(np.diff(opening[opening != 0])))
