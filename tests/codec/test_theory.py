"""What the EinSort paper proves and prints, and what sorting buys on structureless data."""

import math

import pytest
import torch

from einsort_vla.codec import Curve, Network, decode, encode
from einsort_vla.codec.network.order import Order
from einsort_vla.codec.network.score import score


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def coded_error(matrix, rank, scope):
    """Relative Frobenius error of one block coded at that rank, its entries ordered by `scope`."""
    spec = Network(rank, 1, scope=scope, storage="index", sign_split=False, is_gauged=False)
    return float((matrix - decode(encode(matrix, spec))).norm() / matrix.norm())


@pytest.mark.parametrize("n", [64, 256])
def test_lemma_2_1_sorted_uniform_values_have_rank_two_but_for_order_noise(n):
    """The paper says rank at most 3; the mean u 1^T + 1 v^T has rank at most 2."""
    values = torch.rand(n, n, generator=generator())
    # Order noise is O_p(1/n): a Brownian bridge of size 1/2 at most, over n.
    assert coded_error(values, 2, "full") < 0.5 / n
    assert (
        coded_error(values, 2, "none") > 0.4
    )  # the deviation of uniform values is half their size


def test_lemma_d_1_row_sorted_values_tend_to_rank_one():
    errors = []
    for n in (64, 256, 1024):
        values = torch.rand(256, n, generator=generator())
        errors.append(coded_error(values, 1, "row") * math.sqrt(n))
    assert max(errors) < 0.71  # O_p(n^-1/2): sqrt of the mean variance 1/6 over the mean square 1/3
    assert max(errors) / min(errors) < 1.3


def test_proposition_d_2_row_and_column_permutations_change_nothing():
    matrix = torch.randn(40, 30, generator=generator())
    rows, columns = torch.randperm(40), torch.randperm(30)
    spec = Network(5, 1, scope="none", sign_split=False, is_gauged=False)
    moved, plain = (decode(encode(m, spec)) for m in (matrix[rows][:, columns], matrix))
    # Float16 cores of unit size, five products a number.
    torch.testing.assert_close(moved, plain[rows][:, columns], rtol=0, atol=5 * 2**-10)


def test_an_axis_dependent_swap_does_change_them():
    """[[2, 1], [1, 2]] has singular values 3 and 1; with its second row swapped it has rank one."""
    matrix = torch.tensor([[2.0, 1.0], [1.0, 2.0]])
    assert coded_error(matrix, 1, "none") == pytest.approx(1 / math.sqrt(10), abs=1e-3)
    assert coded_error(matrix, 1, "row") < 1e-3  # what rounding to float16 leaves


def margins(value, slices=8, n=1_000_000):
    """Mean over deviation of what one entry adds to the score of its place, by simulation."""
    others = torch.rand(slices - 1, n, generator=generator()).double()
    product = value * others.prod(0)
    mean = score(torch.cat([torch.full((1, n), value).double(), others]), "abs_power", 1.0, "mean")
    return float(value / slices / mean.std()), float(product.mean() / product.std())


def test_proposition_d_3_margins_of_the_two_reductions():
    """The paper prints 0.13 and 0.41 for p = 1, 8 slices, entry 0.1; the second is 0.392."""
    mean, product = margins(0.1)
    assert (
        mean == pytest.approx(0.1 / math.sqrt(7 / 12), rel=0.01) == pytest.approx(0.131, abs=1e-3)
    )
    assert product == pytest.approx(1 / math.sqrt((4 / 3) ** 7 - 1), rel=0.02)
    assert 1 / math.sqrt((4 / 3) ** 7 - 1) == pytest.approx(0.392, abs=1e-3)
    # The mean forgets small entries; the product does not care how large an entry is.
    assert margins(0.05)[0] == pytest.approx(mean / 2, rel=0.01)
    assert margins(0.05)[1] == pytest.approx(product, rel=1e-9)


PRINTED = [  # scheme, scope, size, (m, c), slices that share it, bits an entry as printed
    ("full sort of 1024 x 1024", "full", 2, (1024, 1024), 1, 18.6),
    ("row sort, rows of 1024", "row", 2, (4, 1024), 1, 8.6),
    ("row sort, order in groups of 64 ignored", "group", 64, (4, 1024), 1, 3.9),
    ("axis by axis, a row of 1024 in binary axes", "axis", 2, (4, 1024), 1, 5.0),
    ("4 modes of 32, one sliced", "full", 2, (1, 32**3), 32, 0.42),
    ("last four axes of 32, joint", "full", 2, (1, 32**4), 1, 18.6),
    ("last four axes of 32, two pairs", "axis", 1024, (1, 32**4), 1, 17.1),
    ("last four axes of 32, one at a time", "axis", 32, (1, 32**4), 1, 14.7),
    ("KV of Qwen3, 64 tokens x 128, 8 heads", "full", 2, (64, 128), 8, 1.44),
    ("KV of Gemma3-4B, 64 tokens x 256, 4 heads", "full", 2, (64, 256), 4, 3.14),
    ("KV of Phi-3.5-mini, 64 tokens x 96, 32 heads", "full", 2, (64, 96), 32, 0.35),
    ("KV of Phi-3.5-mini, full sort", "full", 2, (64, 96), 1, 11.1),
]


@pytest.mark.parametrize(("scheme", "scope", "size", "shape", "slices", "printed"), PRINTED)
def test_permutation_memory_is_as_printed(scheme, scope, size, shape, slices, printed):
    bits = Order(scope, size, "lehmer", *shape).least_bits() / (math.prod(shape) * slices)
    digits = len(str(printed).split(".")[1])
    assert round(bits, digits) == printed, scheme


# Relative Frobenius error of an i.i.d. Gaussian block, 8 heads x 64 x 128, by share of numbers
# kept in cores: plain SVD, with gauge, signs split without sorting, EinSort by product, by mean.
SYNTHETIC = {
    0.9: (0.353, 0.217, 0.128, 0.120, 0.113),
    0.5: (0.627, 0.593, 0.354, 0.334, 0.319),
    0.2: (0.842, 0.836, 0.504, 0.478, 0.465),
    0.1: (0.918, 0.919, 0.555, 0.528, 0.515),
}
VARIANTS = [
    {"scope": "none", "sign_split": False, "is_gauged": False},
    {"scope": "none", "sign_split": False},
    {"scope": "none"},
    {"reduction": "prod"},
    {"reduction": "mean"},
]


@pytest.mark.parametrize("kept", SYNTHETIC)
def test_synthetic_table(kept):
    block = torch.randn(8 * 64, 128, generator=generator())
    for variant, expected in zip(VARIANTS, SYNTHETIC[kept], strict=True):
        spec = _with_core_share(kept, block, variant)
        error = (block - decode(encode(block, spec))).norm() / block.norm()
        assert float(error) == pytest.approx(expected, abs=0.01), variant


def _with_core_share(kept, block, variant):
    """The highest rank whose core numbers are at most that share of the weights."""
    shape = tuple(block.shape)
    specs = [Network(rank, 8, **variant) for rank in range(1, 129)]
    return [s for s in specs if s.n_core_numbers(shape) <= kept * block.numel()][-1]


def test_an_exact_order_costs_what_it_costs():
    for n in (10**4, 10**6):
        entry = math.lgamma(n + 1) / math.log(2) / n
        assert entry == pytest.approx(math.log2(n) - 1 / math.log(2), abs=1e-2)


def test_a_sign_in_the_window_beats_a_sign_apart():
    weight = torch.randn(1024, 64, generator=torch.Generator().manual_seed(0))
    energy = weight.square().sum()
    alone = (weight - weight.sign() * weight.abs().mean()).square().sum() / energy
    assert alone == pytest.approx(1 - 2 / math.pi, abs=5e-3)
    inside = (weight - decode(encode(weight, Curve(1.0)))).square().sum() / energy
    assert 10 * math.log10(alone / inside) > 1.1
