"""Lossless coding is bit for bit, in the size its spec says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from einsort_vla.codec import Lossless, decode, encode
from einsort_vla.errors import NumericsError


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 400),
    spread=st.floats(0, 40),
    seed=st.integers(0, 999),
)
def test_every_finite_bit_pattern_comes_back(rows, columns, spread, seed):
    generator = torch.Generator().manual_seed(seed)
    exponents = (spread * torch.randn(rows, columns, generator=generator)).exp2()
    weight = (torch.randn(rows, columns, generator=generator) * exponents).bfloat16()
    weight[~(weight.abs() < 60_000)] = -0.0
    (spec,) = Lossless.menu(weight)
    compressed = encode(weight, spec)
    found = decode(compressed).bfloat16()
    assert torch.equal(found.view(torch.int16), weight.view(torch.int16))
    assert compressed.stored_bits == spec.n_bits((rows, columns))


def test_a_third_of_gaussian_weights_is_saved():
    weight = torch.randn(512, 512, generator=torch.Generator().manual_seed(0)).bfloat16()
    (spec,) = Lossless.menu(weight)
    assert spec.n_bits((512, 512)) < 0.68 * 16 * weight.numel()


def test_what_bfloat16_cannot_hold_is_not_offered_and_refused():
    weight = torch.tensor([[0.1, 0.2]])
    assert not Lossless.menu(weight)
    with pytest.raises(NumericsError, match="bfloat16 cannot"):
        encode(weight, Lossless(10))


def test_a_spec_of_other_weights_is_refused():
    with pytest.raises(NumericsError, match=r"made for other weights \(10 bytes\)"):
        encode(torch.zeros(300, 300), Lossless(10))
