"""Intervals against published examples, brute force, simulation and their laws."""

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, chi2

from einsort_vla.results.statistics import (
    PairCounts,
    bootstrap_interval,
    clustered_bootstrap,
    mcnemar_p,
    newcombe,
    score_variance,
    tango,
    wilson,
)

COUNTS = st.builds(PairCounts, *[st.integers(0, 60)] * 4).filter(lambda counts: counts.n)


def test_wilson_against_newcombe_1998_table():
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, score method without correction.
    for successes, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                    (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]:  # fmt: skip
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("counts", "interval"),
    [
        # Newcombe 1998, Statistics in Medicine 17:2635-2650, table III, method 10.
        (PairCounts(36, 2, 12, 0), (0.0569, 0.3404)),
        # Complete response before and after consolidation (Cavo et al. 2012), as worked out by
        # Fagerland, Lydersen and Laake in the R package contingencytables.
        (PairCounts(59, 16, 6, 80), (-0.1186, -0.0046)),
    ],
)
def test_newcombe_against_published_examples(counts, interval):
    assert newcombe(counts) == pytest.approx(interval, abs=5e-5)


def test_tango_against_a_published_example():
    # Airway hyper-responsiveness before and after transplantation, Fagerland, Lydersen and Laake
    # 2014, Statistics in Medicine 33:2850-2875, tables II and V.
    assert tango(PairCounts(1, 7, 1, 12)) == pytest.approx((-0.517, -0.026), abs=5e-4)


@given(COUNTS)
def test_tango_ends_where_the_score_test_stops_rejecting(counts):
    """The likeliest chances under a difference are found by search here, not in closed form."""
    ends = np.array(tango(counts))
    for end, sign in zip(ends, (1, -1), strict=True):
        if abs(end) > 1 - 1e-9:
            continue
        if counts.only_arm + counts.only_reference == 0:
            expected = chi2.ppf(0.95, 1) / (counts.n + chi2.ppf(0.95, 1))  # Wilson's at 0 of n
            assert -sign * end == pytest.approx(expected, abs=1e-7)
            continue
        excess = counts.only_arm - counts.only_reference - counts.n * end
        statistic = excess**2 / (counts.n * _searched_variance(counts, end))
        assert statistic == pytest.approx(chi2.ppf(0.95, 1), rel=1e-3)
        assert sign * excess > 0


def _searched_variance(counts, difference):
    gained, lost, same = counts.only_arm, counts.only_reference, counts.both + counts.neither

    def surprise(p_lost):
        cells = np.array([p_lost + difference, p_lost, 1 - difference - 2 * p_lost])
        return -np.sum(np.array([gained, lost, same]) * np.log(np.maximum(cells, 1e-300)))

    bounds = max(0, -difference), (1 - difference) / 2
    p_lost = minimize_scalar(surprise, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return 2 * p_lost + difference - difference**2


@pytest.mark.parametrize("interval", [newcombe, tango])
@given(counts=COUNTS)
def test_exchanging_the_arms_turns_the_interval_round(interval, counts):
    low, high = interval(counts)
    assert (-high, -low) == pytest.approx(interval(counts.swapped), abs=1e-8)
    assert -1 <= low <= counts.difference + 1e-9
    assert counts.difference - 1e-9 <= high <= 1


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_lies_around_the_rate_inside_0_to_1(trials):
    successes, n = trials
    low, high = wilson(*trials)
    assert -1e-12 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1 + 1e-12


def test_arms_that_never_differed_may_still_differ():
    low, high = tango(PairCounts(20, 0, 0, 0))
    assert low == pytest.approx(-0.1611, abs=5e-5)  # Wilson's upper end of 0 in 20
    assert high == pytest.approx(0.1611, abs=5e-5)


# Chances of both, only the reference, only the arm, neither.
CELLS = [(0.9, 0.03, 0.03, 0.04), (0.7, 0.1, 0.05, 0.15), (0.45, 0.05, 0.05, 0.45),
         (0.5, 0.2, 0.2, 0.1), (0.8, 0.15, 0.0, 0.05)]  # fmt: skip


@pytest.mark.parametrize("cells", CELLS)
def test_intervals_hold_the_truth_95_percent_of_the_time(cells):
    drawn, times = np.unique(
        np.random.default_rng(0).multinomial(50, cells, size=2000), axis=0, return_counts=True
    )
    for interval in (newcombe, tango):
        bounds = np.array([interval(PairCounts(*row)) for row in drawn.tolist()])
        held = (bounds[:, 0] <= cells[2] - cells[1]) & (cells[2] - cells[1] <= bounds[:, 1])
        assert np.average(held, weights=times) >= 0.93


@given(COUNTS)
def test_mcnemar_counts_the_ways_that_are_no_likelier(counts):
    discordant = counts.only_arm + counts.only_reference
    fewer = min(counts.only_arm, counts.only_reference)
    tail = sum(comb(discordant, k) for k in range(fewer + 1)) / 2**discordant
    assert mcnemar_p(counts) == pytest.approx(min(1, 2 * tail))


def test_resampling_tasks_is_wider_where_tasks_differ():
    alike = clustered_bootstrap([PairCounts(18, 2, 0, 0)] * 10)
    apart = clustered_bootstrap([PairCounts(16, 4, 0, 0), PairCounts(20, 0, 0, 0)] * 5)
    assert alike == tango(PairCounts(180, 20, 0, 0))  # whose resamples are all the same
    assert apart[0] < -0.14
    assert apart[1] > -0.06
    assert clustered_bootstrap([PairCounts(18, 2, 0, 0), PairCounts(0, 0, 0, 0)]) is None


@pytest.mark.parametrize("n", [2, 7, 100])
def test_scores_that_are_all_alike_have_an_interval_with_a_width(n):
    exact = binomtest(n, n).proportion_ci(method="exact")
    assert bootstrap_interval((np.ones(n),), limits=(0, 1)) == pytest.approx((exact.low, 1))
    low, high = bootstrap_interval((np.full(n, 0.3),), limits=(0, 1))
    assert (0.3 - low) / 0.3 == pytest.approx((high - 0.3) / 0.7)  # the same share differs
    assert bootstrap_interval((np.zeros(n),), limits=(-1, 1)) == pytest.approx(
        (exact.low - 1, 1 - exact.low)
    )
    assert bootstrap_interval((np.full(n, 0.3),)) is None  # nothing bounds what differs


def test_no_trials_give_nothing():
    nothing = PairCounts(0, 0, 0, 0)
    assert wilson(0, 0) is None
    for function in (newcombe, tango, mcnemar_p):
        assert function(nothing) is None
    assert nothing.difference is None
    assert score_variance(0, 0, 0.0) == 0
