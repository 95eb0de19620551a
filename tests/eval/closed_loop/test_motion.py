"""How the arm moved, against paths whose figures are known."""

import numpy as np
import pytest

from eval.closed_loop.motion import MotionRecorder

HZ = 20.0


def record(hands, actions=None, seams=(), gripper=6):
    recorder = MotionRecorder(HZ, np.asarray(hands[0], float), gripper)
    if actions is None:
        actions = np.zeros((len(hands) - 1, 7))
    for i, (hand, action) in enumerate(zip(hands[1:], actions, strict=True)):
        recorder.add(np.asarray(action, float), np.asarray(hand, float), i in seams)
    return recorder.result()


def test_a_straight_steady_path_has_its_length_and_no_jerk():
    found = record([(0.01 * i, 0.0, 0.02 * i) for i in range(41)])
    assert found["path_m"] == pytest.approx(40 * np.hypot(0.01, 0.02))
    assert found["jerk_m_s3"] == pytest.approx(0, abs=1e-9)
    assert found["duration_s"] == pytest.approx(2.0)


def test_jerk_of_a_cubic_is_its_third_derivative():
    times = np.arange(30) / HZ
    found = record(np.stack([0.5 * times**3, -(times**3), 0 * times], axis=1))
    assert found["jerk_m_s3"] == pytest.approx(6 * np.hypot(0.5, 1.0))


def test_seams_toggles_and_saturation_are_counted():
    actions = np.zeros((6, 7))
    actions[:, -1] = [-1, -1, 1, 1, 0, -1]
    actions[3, 0], actions[5, 1] = 0.6, 1.5
    found = record(np.zeros((7, 3)), actions, seams=(0, 3, 5))
    assert found["gripper_toggles"] == 2  # a zero commands nothing
    assert found["seam_jump"] == pytest.approx((0.6 + 1.5) / 2)  # not the first seam
    assert found["saturation"] == pytest.approx(1 / 36)


def test_no_step_gives_no_figures_and_few_steps_no_jerk():
    assert record(np.zeros((1, 3))) is None
    assert record([(0, 0, 0), (1, 0, 0)])["jerk_m_s3"] == 0
