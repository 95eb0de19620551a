"""A plan never exceeds its budget, and a lower rate never makes any matrix worse."""

import math
from contextlib import suppress

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from einsort_vla.codec import Codec, Dense, encode
from einsort_vla.errors import CheckpointError, NumericsError, UsageError
from einsort_vla.plan import Candidates, Plan, allocate, options

shapes = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.tuples(st.integers(16, 600), st.integers(64, 600)),
    min_size=1,
    max_size=12,
)

rates = st.integers(0, 8500).map(lambda n: n / 10_000)


def plan_shapes(shapes, rate, form):
    return allocate(candidates(shapes, form), rate)


def candidates(shapes, form="curve"):
    codec = Codec(form)
    return Candidates(codec, {name: options(shape, codec) for name, shape in shapes.items()})


@settings(max_examples=60, deadline=None)
@given(shapes=shapes, rate=rates, form=st.sampled_from(["curve", "scalar"]))
def test_the_rate_is_met_and_all_bits_are_counted(shapes, rate, form):
    plan = plan_shapes(shapes, rate, form)
    assert plan.rate >= rate
    assert plan.n_bits == sum(t.spec.n_bits(t.shape) for t in plan.tensors.values())
    assert plan.n_weights == sum(map(math.prod, shapes.values()))
    assert Plan.from_dict(plan.as_dict()) == plan


@settings(max_examples=40, deadline=None)
@given(shapes=shapes, rates=st.tuples(rates, rates))
def test_a_lower_rate_gives_no_matrix_a_worse_code(shapes, rates):
    fine, coarse = (plan_shapes(shapes, rate, "curve") for rate in sorted(rates))
    for name in shapes:
        assert fine.tensors[name].distortion <= coarse.tensors[name].distortion


def test_the_budget_is_nearly_used_up_on_a_policy_sized_model():
    shapes = {f"layer{i}": (256 + 64 * (i % 3), 256) for i in range(80)}
    # Above 8 bits there is nothing but bfloat16, so that one matrix is a large step.
    for rate, most in ((0.1, 0.008), (0.3, 0.008), (0.5, 0.003), (0.7, 0.003), (0.9, 0.003)):
        assert plan_shapes(shapes, rate, "curve").rate - rate < most


def test_rate_zero_keeps_everything():
    plan = plan_shapes({"a": (64, 64)}, 0, "curve")
    assert plan.rate == 0
    assert plan.tensors["a"].spec.form == "dense"


def of_weights(codec, **weights):
    own = Codec.parse(codec)
    return Candidates(own, {name: options(w.shape, own, w) for name, w in weights.items()})


def test_float32_is_kept_at_its_own_bits():
    weight = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    plan = allocate(of_weights("curve", a=weight, b=weight.bfloat16().float()), 0)
    assert [t.spec.dtype for t in plan.tensors.values()] == ["float32", "bfloat16"]
    assert plan.rate == 1 - (32 + 16) / 2 / 16
    assert plan.distortion == 0
    coded = allocate(of_weights("curve", a=weight, b=weight), 0.001)
    assert {t.spec.form for t in coded.tensors.values()} == {"curve"}


def test_a_matrix_that_no_code_can_hold_stays_dense_with_the_reason():
    weight = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    small = weight.clone()
    small[7] *= 1e-12
    plan = allocate(of_weights("curve", **dict.fromkeys("abcd", weight), small=small), 0.3)
    assert plan.tensors["small"].spec == Dense("float32")
    assert "too small beside 1.3 of another" in plan.tensors["small"].reason
    assert plan.tensors["a"].bits / 1600 < 16 * 0.7 - 3  # they make good for it
    with pytest.raises(
        UsageError, match=r"1 of 2 matrices stay dense, such as small, at 32 bits a weight: a row"
    ):
        allocate(of_weights("curve", a=weight, small=small), 0.5)
    with pytest.raises(NumericsError, match="1 NaN"):
        of_weights("curve", a=torch.tensor([[1.0, torch.nan]]))


@settings(max_examples=80)
@given(
    shape=st.tuples(st.integers(1, 9), st.integers(1, 40)),
    is_tall=st.booleans(),
    codec=st.sampled_from(
        ["curve", "curve window=12", "scalar group=4", "scalar grid=nf4", "lossless", "local",
         "network", "network decomposition=tucker"]
    ),
    rate=st.integers(0, 95).map(lambda n: n / 100),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_heads_of_few_outputs_or_inputs_are_planned(shape, is_tall, codec, rate, seed):
    generator = torch.Generator().manual_seed(seed)
    head, body = (torch.randn(own, generator=generator).bfloat16() for own in (shape, (48, 40)))
    head = head.t() if is_tall else head
    found = of_weights(codec, head=head, body=body)
    with suppress(UsageError):  # beyond the codec's reach
        plan = allocate(found, rate)
        assert plan.rate >= rate
        for name, weight in (("head", head), ("body", body)):
            assert encode(weight, plan.tensors[name].spec).stored_bits == plan.tensors[name].bits


@pytest.mark.parametrize("rate", [-0.1, 0.96, 5, math.nan, math.inf])
def test_impossible_rates(rate):
    with pytest.raises(UsageError, match=r"outside \[0, 0.95\]"):
        plan_shapes({"a": (64, 64)}, rate, "curve")


def test_a_rate_beyond_the_form_names_what_it_reaches():
    with pytest.raises(UsageError, match=r"scalar reaches rate 0.8\d+ at most"):
        plan_shapes({"a": (256, 512)}, 0.9, "scalar")
    with pytest.raises(UsageError, match="no compressible matrix"):
        plan_shapes({}, 0.5, "curve")


def bfloat16_options(form, n=20):
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(96 + 32 * (i % 3), 128, generator=generator).bfloat16() for i in range(n)
    ]
    codec = Codec(form)
    found = {str(i): options((len(w), 128), codec, w) for i, w in enumerate(weights)}
    return Candidates(codec, found)


@pytest.mark.parametrize("form", ["curve", "lossless"])
@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3])
def test_rates_that_need_no_error_have_none(form, rate):
    plan = allocate(bfloat16_options(form), rate)
    assert {t.spec.form for t in plan.tensors.values()} <= {"lossless", "dense"}
    assert plan.distortion == 0
    assert rate <= plan.rate < rate + 0.03  # one matrix in twenty is left dense or not
    assert Plan.from_dict(plan.as_dict()) == plan


def test_lossless_alone_reaches_a_third_and_says_so():
    with pytest.raises(UsageError, match=r"lossless reaches rate 0.3\d+ at most"):
        allocate(bfloat16_options("lossless"), 0.5)
    assert allocate(bfloat16_options("curve"), 0.5).distortion > 0


def test_tiny_matrices_are_coded_finely_at_next_to_no_cost():
    """Such as the projections of states and actions: few weights, and the most important."""
    layers = {f"layer{i}": (256, 512) for i in range(20)}
    plan = allocate(candidates(layers | {"out": (8, 192)}), 0.875)
    usual = max(t.bits / math.prod(t.shape) for n, t in plan.tensors.items() if n != "out")
    assert plan.tensors["out"].bits / (8 * 192) > usual + 4
    assert [name for name, t in plan.tensors.items() if t.reason] == ["out"]
    assert plan.distortion - allocate(candidates(layers), 0.875).distortion < 0.001


@settings(max_examples=30, deadline=None)
@given(shapes=shapes, rates=st.tuples(rates, rates), seed=st.integers(0, 99))
def test_sensitive_matrices_get_the_finer_codes(shapes, rates, seed):
    generator = torch.Generator().manual_seed(seed)
    sensitivities = {name: float(torch.rand(1, generator=generator)) + 0.01 for name in shapes}
    found = candidates(shapes)
    fine, coarse = (allocate(found, rate, sensitivities) for rate in sorted(rates))
    assert all(plan.rate >= rate for plan, rate in zip((fine, coarse), sorted(rates), strict=True))
    for name in shapes:
        assert fine.tensors[name].distortion <= coarse.tensors[name].distortion


def test_the_reason_for_a_finer_code_is_in_the_plan():
    found = candidates({f"layer{i}": (256, 256) for i in range(20)})
    sensitivities = dict.fromkeys(found.tensors, 1.0) | {"layer7": 200.0}
    plan = allocate(found, 0.85, sensitivities)
    finer = {name for name, t in plan.tensors.items() if t.reason}
    assert finer == {"layer7"}
    assert "times as important as usual" in plan.tensors["layer7"].reason
    assert plan.tensors["layer7"].bits == max(t.bits for t in plan.tensors.values())
    assert Plan.from_dict(plan.as_dict()) == plan


def test_layers_without_a_sensitivity_count_as_the_mean_of_the_others():
    found = candidates({f"layer{i}": (256, 256) for i in range(4)})
    known = {"layer0": 3.0, "layer1": 1.0}
    assert allocate(found, 0.8, known) == allocate(found, 0.8, known | {"layer2": 2, "layer3": 2})
    assert allocate(found, 0.8, {"layer0": 0.0}).rate >= 0.8
    with pytest.raises(CheckpointError, match="no sensitivity of layer0 or any other"):
        allocate(found, 0.8, {"of another policy": 1.0})
