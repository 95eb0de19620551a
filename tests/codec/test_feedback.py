"""Error feedback against its textbook form in float64, and what it is for."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from einsort_vla.codec import Curve, Hessian, Scalar, decode, encode
from einsort_vla.codec.feedback import code_in_blocks, code_with_feedback
from einsort_vla.codec.hessian import DAMPING, OUTPUT_DAMPING

SPECS = [Scalar(3), Scalar(3, group=32, grid="asymmetric"), Curve(2.0), Curve(3.25, rotated=True)]


class Rounding:
    """A coder to the nearest multiple of 1/4; remembers how each group looked when it began."""

    def __init__(self, group: int) -> None:
        self.group = group
        self.groups: list[Tensor] = []

    def prepare(self, columns: Tensor) -> None:
        self.groups.append(columns.t().clone())

    def code(self, columns: Tensor) -> Tensor:
        return (4 * columns).round() / 4

    def code_pieces(self, pieces: Tensor, columns: Sequence[int], rows: Sequence[slice]) -> Tensor:
        return self.code(pieces)


@settings(max_examples=20, deadline=None)
@given(columns=st.integers(2, 300), group=st.integers(2, 200), seed=st.integers(0, 999))
def test_blocks_change_nothing(columns, group, seed):
    weight, hessian = _problem(5, columns, seed)
    coder = Rounding(group)
    found = code_with_feedback(weight.double().t().contiguous(), Hessian(hessian), coder).t()
    expected, groups = _textbook(weight.double(), hessian, group)
    # A sum in another order may tip a value on the edge between two levels, and then all after it.
    same = (found == expected).double().mean()
    assert same > 0.98
    if same == 1:
        for ours, theirs in zip(coder.groups, groups, strict=True):
            torch.testing.assert_close(ours, theirs)


def _textbook(weight: Tensor, hessian: Tensor, group: int) -> tuple[Tensor, list[Tensor]]:
    """Optimal brain quantization in a fixed order: the inverse shrinks by one column a step."""
    left, found, groups = weight.clone(), torch.empty_like(weight), []
    damped = hessian.double() + DAMPING * hessian.diagonal().double().mean() * torch.eye(
        len(hessian), dtype=torch.float64
    )
    for i in range(weight.shape[1]):
        if i % group == 0:
            groups.append(left[:, i : i + group].clone())
        inverse = torch.linalg.inv(damped[i:, i:])
        found[:, i] = (4 * left[:, i]).round() / 4
        left[:, i:] -= torch.outer((left[:, i] - found[:, i]) / inverse[0, 0], inverse[0])
    return found, groups


@settings(max_examples=10, deadline=None)
@given(
    columns=st.integers(1, 9), rows=st.integers(1, 8), block=st.integers(1, 4),
    seed=st.integers(0, 999),
)  # fmt: skip
def test_both_sides_take_on_what_is_best_for_the_whole(columns, rows, block, seed):
    """Each piece is met where all that is not coded yet could still make good its errors."""
    weight, inputs = _problem(rows, columns, seed)
    _, outputs = _problem(columns, rows, seed + 1)
    blocks = [slice(k, min(k + block, rows)) for k in range(0, rows, block)]
    found = code_in_blocks(
        weight.double().t().contiguous(), Hessian(inputs, outputs), Rounding(columns), blocks
    )[1].t()
    whole = torch.kron(_damped(outputs, OUTPUT_DAMPING), _damped(inputs, DAMPING))
    place = torch.arange(rows * columns).view(rows, columns)
    error, left = torch.zeros(rows * columns, dtype=torch.float64), weight.double().flatten()
    pieces = [place[own, k] for own in blocks for k in range(columns)]
    for i, piece in enumerate(pieces):
        coded, free = torch.cat([piece[:0], *pieces[:i]]), torch.cat(pieces[i:])
        best = torch.linalg.solve(whole[free][:, free], whole[free][:, coded] @ error[coded])
        wanted = left[piece] + best[: len(piece)]
        error[piece] = left[piece] - (4 * wanted).round() / 4
    same = (found.flatten() == left - error).double().mean()
    assert same > 0.98


def _damped(moments: Tensor, share: float) -> Tensor:
    own = moments.double()
    return own + share * own.diagonal().mean() * torch.eye(len(own), dtype=torch.float64)


@pytest.mark.parametrize("bits", [1.5, 2.0, 6.0])
def test_outputs_that_matter_alike_take_on_the_errors_of_others(bits):
    """At the same bits the loss is clearly less than what columns alone leave."""
    weight, inputs = _problem(300, 96, seed=4)
    _, outputs = _problem(96, 300, seed=5)
    spec = Curve(bits, 6 if bits == 6 else 13, rotated=True)

    def loss(hessian: Hessian) -> float:
        missing = weight - decode(encode(weight, spec, hessian))
        return float(((missing @ inputs) * (outputs @ missing)).sum())

    assert loss(Hessian(inputs, outputs)) < 0.75 * loss(Hessian(inputs))


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_outputs_come_closer_at_the_same_bits(spec):
    weight, hessian = _problem(64, 96, seed=1)
    plain, fed = encode(weight, spec), encode(weight, spec, Hessian(hessian))
    assert fed.stored_bits == plain.stored_bits == spec.n_bits((64, 96))
    assert _output_error(weight, decode(fed), hessian) < 0.5 * _output_error(
        weight, decode(plain), hessian
    )


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_uncorrelated_inputs_leave_nothing_to_feed_back(spec):
    weight, _ = _problem(32, 48, seed=2)
    plain, fed = encode(weight, spec), encode(weight, spec, Hessian(7 * torch.eye(48)))
    for part in plain.parts:
        torch.testing.assert_close(plain.parts[part], fed.parts[part])


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_inputs_never_seen_are_coded_as_without_calibration(spec):
    weight, hessian = _problem(32, 48, seed=3)
    hessian[7], hessian[:, 7] = 0, 0
    decoded = decode(encode(weight, spec, Hessian(hessian)))
    relative = (decoded[:, 7] - weight[:, 7]).square().sum() / weight[:, 7].square().sum()
    assert relative < 0.25


def _problem(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """A weight, and the Hessian of inputs that are far from independent."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    inputs = torch.randn(4 * columns, columns, generator=generator) @ (mixing @ mixing)
    return weight, inputs.t() @ inputs


def _output_error(weight: Tensor, decoded: Tensor, hessian: Tensor) -> float:
    error = weight - decoded
    return float(((error @ hessian) * error).sum())
