"""MixT's operators: the published ratios, least squares, and execution without the matrix."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from einsort_vla.codec import Local, decode, encode
from einsort_vla.errors import ShapeError, UsageError
from einsort_vla.kernels import BackendChoice, make_backend


@pytest.mark.parametrize(
    ("operators", "percent"), [(2, 50.0), (3, 18.75), (4, 6.25), (5, 1.953125)]
)
def test_ratios_are_as_published(operators, percent):
    assert 100 * Local(operators).n_bits((4096, 4096)) / (16 * 4096**2) == percent


def test_padding_is_counted():
    """Llama-2-7B's 4096 x 11008 at 4 operators keeps 9.3 %, not 6.25 %."""
    kept = Local(4).n_bits((11008, 4096)) / (16 * 11008 * 4096)
    assert kept == pytest.approx(0.0625 * 16384 / 11008)


@settings(max_examples=15, deadline=None)
@given(
    rows=st.integers(5, 20), columns=st.integers(5, 20), operators=st.integers(2, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_the_fit_is_least_squares_and_runs_without_the_matrix(rows, columns, operators, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    spec = Local(operators)
    compressed = encode(weight, spec)
    assert compressed.stored_bits == spec.n_bits((rows, columns))
    operators_found = compressed.parts["operators"].double()
    best = _brute_force(weight.double(), spec)
    error = (spec.decode(compressed.parts, (rows, columns)) - weight).square().sum()
    assert float(error) <= float((best - weight).square().sum()) * 1.02 + 1e-3
    assert operators_found.isfinite().all()
    x = torch.randn(3, 2, columns, generator=generator)
    expected = x @ decode(compressed).t()
    found = make_backend(BackendChoice("factored"), compressed).linear(x, None)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def _brute_force(weight, spec):
    """All operators at once by dense least squares, on the padded matrix."""
    shape = tuple(weight.shape)
    windows = spec._windows(shape)
    side = [spec.d ** (spec.operators - 1) * w for w in windows]
    padded = torch.zeros(*side, dtype=torch.float64)
    padded[: shape[0], : shape[1]] = weight
    columns = []
    for k in range(spec.operators):
        for i in range(windows[0]):
            for j in range(windows[1]):
                unit = torch.zeros(*windows, dtype=torch.float64)
                unit[i, j] = 1 / spec.operators
                columns.append(spec._embed(unit, k).flatten())
    basis = torch.stack(columns, dim=1)
    solution = torch.linalg.lstsq(basis, padded.flatten()[:, None], driver="gelsd").solution
    return (basis @ solution)[:, 0].view(*side)[: shape[0], : shape[1]]


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="2 to 32 operators"):
        Local(1)
    with pytest.raises(ShapeError, match=r"4 local operators need 4 bonds of 2; .* has 3 and 3"):
        encode(torch.randn(8, 8), Local(4))
