"""Every rate from 0.10 to 0.92 can be had on the real policy, and nothing is wasted."""

import pytest

from einsort_vla.checkpoint import DenseFolder
from einsort_vla.codec import Codec
from einsort_vla.plan import allocate, candidates_of


@pytest.fixture(scope="module")
def candidates(reference_policy):
    return candidates_of(DenseFolder(reference_policy), Codec("curve"))


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_rate_is_met_closely(candidates, calibrated):
    by_name = {name: 1.0 + len(name) % 7 for name in candidates.tensors}
    sensitivities = by_name if calibrated else None
    before = None
    for percent in range(10, 93):
        plan = allocate(candidates, percent / 100, sensitivities)
        assert percent / 100 <= plan.rate <= percent / 100 + 0.005, percent
        if before is not None:
            assert plan.n_bits < before.n_bits
            worse = [n for n in plan.tensors if plan.tensors[n].distortion
                     < before.tensors[n].distortion]  # fmt: skip
            assert not worse, percent
        before = plan
