"""The physics check of `einsort-vla doctor` tells MuJoCo's newer contacts from LIBERO's."""

import numpy as np
import pytest
from lerobot_env_einsort_libero import physics

NEWER_M = (-0.21166, 0.16790, 0.94042)  # the bowl's place in MuJoCo 3.4.0 and 3.9.0


@pytest.mark.parametrize(
    ("place", "verdict"), [(physics.EXPECTED_M, "ok"), (NEWER_M, "wrong")]
)  # fmt: skip
def test_a_bowl_that_slides_is_wrong(monkeypatch, place, verdict):
    monkeypatch.setattr(physics, "bowl_place", lambda: np.array(place))
    (finding,) = physics.check()
    assert finding.verdict == verdict
    assert ("34" in finding.found) == (verdict == "wrong")
    assert bool(finding.fix) == (verdict == "wrong")


def test_a_simulator_that_fails_is_a_finding(monkeypatch):
    def fail():
        raise TypeError("mj_fullM(): incompatible function arguments")

    monkeypatch.setattr(physics, "bowl_place", fail)
    (finding,) = physics.check()
    assert (finding.verdict, "TypeError" in finding.found) == ("wrong", True)
