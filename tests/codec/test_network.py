"""The paper's form: round trips, exact bits, and every option against its definition."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from einsort_vla.codec import Hessian, Network, decode, encode
from einsort_vla.codec.hessian import DAMPING
from einsort_vla.codec.network import gauge, permutation
from einsort_vla.codec.network.order import Order
from einsort_vla.codec.network.score import score
from einsort_vla.errors import UsageError

SCOPES = ["none", "full", "row", "group", "axis"]


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 300), count=st.integers(1, 4), seed=st.integers(0, 999))
def test_permutations_come_back_from_both_storages(n, count, seed):
    generator = torch.Generator().manual_seed(seed)
    orders = torch.stack([torch.randperm(n, generator=generator) for _ in range(count)])
    for storage in ("lehmer", "index"):
        stored = permutation.store(orders, storage)
        assert 8 * len(stored) == permutation.stored_bits(n, count, storage)
        assert torch.equal(permutation.restore(stored, n, count, storage), orders)


@pytest.mark.parametrize("n", [2, 5, 64, 1000, 8192])
def test_lehmer_codes_are_as_short_as_can_be(n):
    least = math.ceil(math.log2(math.factorial(n)))
    assert least <= permutation.stored_bits(n, 1, "lehmer") <= least + n / 64 + 8


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 9),
    c=st.integers(1, 40),
    scope=st.sampled_from(SCOPES),
    size=st.integers(2, 6),
    storage=st.sampled_from(["lehmer", "index"]),
    seed=st.integers(0, 999),
)
def test_an_order_is_read_back_and_sorts_as_its_scope_says(m, c, scope, size, storage, seed):
    order = Order(scope, size, storage, m, c)
    values = torch.rand(m, c, generator=torch.Generator().manual_seed(seed))
    stored = order.choose(values)
    assert 8 * len(stored) == order.n_bits() >= order.least_bits() - 1e-6
    places = order.read(stored)
    assert sorted(places.tolist()) == list(range(m * c))
    found = values.flatten()[places].view(m, c)
    if scope == "none":
        assert torch.equal(found, values)
    elif scope == "full":
        assert torch.equal(found.flatten(), values.flatten().sort().values)
    elif scope == "row":
        assert torch.equal(found, values.sort(dim=1).values)
    elif scope == "group":
        for k in range(0, c, size):  # each run holds the right entries, in their old order
            expected = values.sort(dim=1).values[:, k : k + size]
            assert torch.equal(found[:, k : k + size].sort(dim=1).values, expected)
        rows = places.view(m, c)
        assert all((rows[:, k : k + size].diff(dim=1) > 0).all() for k in range(0, c, size))
    else:
        assert torch.equal(found.sort(dim=1).values, values.sort(dim=1).values)  # inside rows


def test_axis_by_axis_sorting_of_a_binary_pair():
    order = Order("axis", 2, "index", 1, 4)
    values = torch.tensor([[3.0, 2.0, 1.0, 0.0]])  # (2, 2): columns sorted, then rows
    assert values.flatten()[order.read(order.choose(values))].tolist() == [0.0, 1.0, 2.0, 3.0]


@settings(max_examples=30, deadline=None)
@given(m=st.integers(1, 40), r=st.integers(1, 40), seed=st.integers(0, 999))
def test_a_fixed_gauge_keeps_the_product(m, r, seed):
    r = min(m, r)
    matrix = torch.randn(m, r, generator=torch.Generator().manual_seed(seed)).double()
    chosen, rest, push = gauge.fix(matrix)
    assert int(chosen.sum()) == r
    assert rest.shape == (m - r, r)
    torch.testing.assert_close(gauge.join(chosen, rest) @ push, matrix)


REDUCTIONS = {
    "mean": [2.0, 4.0], "max": [3.0, 6.0], "min": [1.0, 2.0], "median": [2.0, 4.0],
    "std": [math.sqrt(2 / 3), math.sqrt(8 / 3)],
}  # fmt: skip


def test_scores_are_what_their_names_say():
    slices = torch.tensor([[1.0, -2.0], [2.0, 4.0], [3.0, -6.0]])
    for name, expected in REDUCTIONS.items():
        found = score(slices, "abs_power", 1.0, name)
        torch.testing.assert_close(found, torch.tensor(expected).double())
    product = score(slices, "linear", 1.0, "prod")  # 6 and 48: only the order counts
    assert product[0] < product[1]
    assert score(-slices, "linear", 1.0, "prod").argsort().tolist() == [1, 0]
    for name, expected in {
        "power": -(2.0**0.5), "abs_power": 2.0**0.5, "exp": math.exp(-1), "linear": -1.0,
    }.items():  # fmt: skip
        assert float(score(torch.tensor([[-2.0]]), name, 0.5, "max")) == pytest.approx(expected)
    assert float(score(torch.tensor([[-3.0]]), "log_shift", 4.0, "max")) == pytest.approx(0)
    assert float(score(torch.tensor([[3.0]]), "log_scale", 4.0, "max")) == pytest.approx(
        math.log(12)
    )


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 30),
    rank=st.integers(1, 40),
    slices=st.integers(1, 9),
    scope=st.sampled_from(SCOPES),
    decomposition=st.sampled_from(["svd", "tt", "tr", "cp", "tucker"]),
    flags=st.tuples(*[st.booleans()] * 3),
    storage=st.sampled_from(["lehmer", "index"]),
    fold=st.sampled_from(["factors", "slices"]),
    seed=st.integers(0, 99),
)
def test_bits_are_exact_for_any_shape(
    rows, columns, rank, slices, scope, decomposition, flags, storage, fold, seed
):
    if decomposition == "cp":
        rank = min(rank, 3)
    split, gauged, scaled = flags
    spec = Network(
        rank, slices, decomposition, scope=scope, sign_split=split, is_gauged=gauged,
        column_scaled=scaled, storage=storage, fold=fold,
    )  # fmt: skip
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    compressed = encode(weight, spec, Hessian(torch.eye(columns) * 2))
    assert compressed.stored_bits == spec.n_bits((rows, columns))
    found = {name: (part.dtype, tuple(part.shape)) for name, part in compressed.parts.items()}
    assert found == spec.layout((rows, columns))
    assert 8 * len(compressed.parts["order"]) == spec.order_bits((rows, columns))[storage]
    decoded = decode(compressed)
    assert decoded.shape == weight.shape
    assert torch.isfinite(decoded).all()


@pytest.mark.parametrize("decomposition", ["svd", "tt", "tucker", "tr"])
@pytest.mark.parametrize("gauged", [True, False])
@pytest.mark.parametrize("scope", ["none", "full"])
@pytest.mark.parametrize("fold", ["factors", "slices"])
def test_full_rank_gives_the_matrix_back(decomposition, gauged, scope, fold):
    weight = torch.randn(24, 36, generator=torch.Generator().manual_seed(0))
    # A ring splits its first bond in two, so that its full rank is the square of the others'.
    spec = Network(400 if decomposition == "tr" else 40, 4, decomposition, scope=scope,
                   is_gauged=gauged, fold=fold)  # fmt: skip
    torch.testing.assert_close(decode(encode(weight, spec)), weight, rtol=0.02, atol=0.02)


def test_choices_know_the_error_before_coding():
    weight = torch.randn(64, 48, generator=torch.Generator().manual_seed(0))
    for spec, expected in Network.choices((64, 48), weight):
        found = (weight - decode(encode(weight, spec))).square().sum() / weight.square().sum()
        # Negative magnitudes are cut at zero when decoding, which can only help.
        assert float(found) <= expected + 1e-4
        assert float(found) >= 0.8 * expected - 1e-4


def test_a_plain_svd_leaves_the_least_output_error():
    """SVD-LLM: what remains under the Hessian are the singular values of W L beyond the rank."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(48, 32, generator=generator)
    inputs = torch.randn(400, 32, generator=generator) @ torch.randn(32, 32, generator=generator)
    hessian = inputs.t() @ inputs / 400
    spec = Network(6, scope="none", sign_split=False)
    missing = (weight - decode(encode(weight, spec, Hessian(hessian)))).double()
    damped = hessian.double() + DAMPING * hessian.diagonal().double().mean() * torch.eye(32)
    found = ((missing @ damped) * missing).sum()
    values = torch.linalg.svdvals(weight.double() @ torch.linalg.cholesky(damped))
    assert float(found) == pytest.approx(float(values[6:].square().sum()), rel=1e-3)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rank": 0}, "rank and slices of 1 or more"),
        ({"rank": 3, "decomposition": "svt"}, "Did you mean 'svd'"),
        ({"rank": 3, "scope": "rows"}, "Did you mean 'row'"),
        ({"rank": 3, "power": math.nan}, "power above 0"),
    ],
)
def test_bad_networks(parameters, message):
    with pytest.raises(UsageError, match=message):
        Network(**parameters)
