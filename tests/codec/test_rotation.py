"""The rotation against its matrix, and what it is for."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dct
from scipy.linalg import hadamard

from einsort_vla.codec import Curve, Hessian, decode, encode
from einsort_vla.codec.rotation import rotate, unrotate


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 400), seed=st.integers(0, 99))
def test_it_keeps_lengths_and_comes_back(n, seed):
    rows = torch.randn(3, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    turned = rotate(rows)
    torch.testing.assert_close(turned.norm(dim=1), rows.norm(dim=1))
    torch.testing.assert_close(unrotate(turned), rows)


@pytest.mark.parametrize("n", [1, 7, 8, 24, 80])
def test_it_is_signs_times_hadamard_times_cosines(n):
    matrix = rotate(torch.eye(n, dtype=torch.float64))
    power = n & -n
    odd = n // power
    cosines = torch.from_numpy(dct(torch.eye(odd, dtype=torch.float64).numpy(), norm="ortho"))
    rotation = torch.kron(torch.from_numpy(hadamard(power)) / power**0.5, cosines)
    signs = matrix[:, 0] / rotation[:, 0]
    torch.testing.assert_close(matrix, signs[:, None] * rotation)
    torch.testing.assert_close(signs.abs(), torch.ones(n, dtype=torch.float64))


def test_outliers_cost_less_after_it():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(128, 96, generator=generator)
    weight[:, ::12] *= 8  # some inputs have large weights, as after a norm
    errors = []
    for rotated in (False, True):
        missing = weight - decode(encode(weight, Curve(2.0, rotated=rotated)))
        errors.append(float(missing.square().sum() / weight.square().sum()))
    assert errors[1] < 0.75 * errors[0]


def test_a_clipped_weight_on_a_large_input_does_not_ruin_its_row():
    """As in SmolLM2: feedback saves the output, and the row's other weights pay for it."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 96, generator=generator)
    inputs = torch.randn(400, 96, generator=generator)
    weight[5, 7], inputs[:, 7] = 12.0, 30.0
    hessian = (inputs.t() @ inputs).double()
    errors = []
    for rotated in (False, True):
        found = decode(encode(weight, Curve(4.0, rotated=rotated), Hessian(hessian)))
        errors.append(float((weight - found)[5].square().sum() / weight[5].square().sum()))
    assert errors[1] < 0.1 * errors[0]
