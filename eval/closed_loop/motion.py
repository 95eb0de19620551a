"""How the arm moves in an episode: what a success rate does not show."""

import numpy as np

from einsort_vla.results import Motion

ARM = slice(0, 6)  # of an action: translation and rotation; the rest is the gripper


class MotionRecorder:
    """Takes every control step of one episode.

    Args:
        control_freq_hz: control steps a second of robot time.
        start: (3,) position of the hand before the first step, m.
    """

    def __init__(self, control_freq_hz: float, start: np.ndarray) -> None:
        self._hz = control_freq_hz
        self._hand = [start]
        self._actions: list[np.ndarray] = []
        self._seams: list[float] = []

    def add(self, action: np.ndarray, hand: np.ndarray, is_seam: bool) -> None:
        """One step: the action as it was commanded, (7,), and where the hand, (3,), then is.

        `is_seam` marks the first action of a chunk.
        """
        if is_seam and self._actions:
            jump = np.linalg.norm(action[ARM] - self._actions[-1][ARM])
            self._seams.append(float(jump))
        self._actions.append(np.asarray(action))
        self._hand.append(hand)

    def result(self) -> Motion | None:
        """None without a step."""
        if not self._actions:
            return None
        hand, actions = np.stack(self._hand), np.stack(self._actions)
        jerk = np.diff(hand, n=3, axis=0) * self._hz**3
        opening = np.sign(actions[:, -1])
        return Motion(
            path_m=float(np.linalg.norm(np.diff(hand, axis=0), axis=1).sum()),
            jerk_m_s3=float(np.sqrt((jerk**2).sum(1).mean())) if len(jerk) else 0.0,
            gripper_toggles=int(np.count_nonzero(np.diff(opening[opening != 0]))),
            seam_jump=float(np.mean(self._seams)) if self._seams else 0.0,
            saturation=float((np.abs(actions[:, ARM]) > 1).mean()),
            duration_s=len(actions) / self._hz,
        )
