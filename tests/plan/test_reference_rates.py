"""Every rate from 0.10 to 0.92 can be had on the real policy, and nothing is wasted."""

import pytest
from safetensors import safe_open

from einsort_vla.checkpoint import WEIGHTS, DenseFolder, compressible_shapes
from einsort_vla.plan import allocate, options


@pytest.fixture(scope="module")
def candidates(reference_policy):
    shapes = compressible_shapes(DenseFolder(reference_policy))
    with safe_open(reference_policy / WEIGHTS, framework="pt") as file:
        return {n: options(shape, "leader", file.get_tensor(n)) for n, shape in shapes.items()}


@pytest.mark.parametrize("calibrated", [False, True])
def test_the_rate_is_met_closely(candidates, calibrated):
    sensitivities = {name: 1.0 + len(name) % 7 for name in candidates} if calibrated else None
    before = None
    for percent in range(10, 93):
        plan = allocate(candidates, percent / 100, "leader", sensitivities)
        assert percent / 100 <= plan.rate <= percent / 100 + 0.005, percent
        if before is not None:
            assert plan.n_bits < before.n_bits
            worse = [n for n in plan.tensors if plan.tensors[n].distortion
                     < before.tensors[n].distortion]  # fmt: skip
            assert not worse, percent
        before = plan
