"""Verdicts at a margin: their errors, the pairs they need, and looking all the time."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import xlogy

from einsort_vla.results.noninferiority import judge, pairs_needed
from einsort_vla.results.sequential import (
    ERROR,
    betting_interval,
    decided,
    judge_sequence,
    largest_log_capital,
)
from einsort_vla.results.statistics import PairCounts, tango


def share_non_inferior(lost, gained, n, margin):
    """How often `n` pairs with these chances are judged non-inferior."""
    chances = (1 - lost - gained, lost, gained)
    drawn = np.random.default_rng(0).multinomial(n, chances, size=20_000)
    rows, times = np.unique(drawn, axis=0, return_counts=True)
    verdicts = [judge(PairCounts(*row, 0), margin).verdict for row in rows.tolist()]
    return np.average([verdict == "non-inferior" for verdict in verdicts], weights=times)


@pytest.mark.parametrize(
    ("gained", "n", "margin"),
    [(0.0, 200, 0.02), (0.02, 500, 0.02), (0.05, 100, 0.1), (0.03, 50, 0.1)],
)
def test_an_arm_at_the_margin_seldom_passes(gained, n, margin):
    assert share_non_inferior(gained + margin, gained, n, margin) <= 0.035


@pytest.mark.parametrize(
    ("discordant", "margin"), [(2, 0.02), (4, 0.05), (10, 0.05), (20, 0.1)]
)  # of 100 pairs
def test_the_pairs_said_to_be_needed_have_the_power(discordant, margin):
    half = discordant // 2
    needed = pairs_needed(PairCounts(90 - discordant, half, half, 10), margin)
    share = discordant / 200
    assert share_non_inferior(share, share, needed, margin) == pytest.approx(0.8, abs=0.05)


def test_verdicts():
    assert judge(PairCounts(190, 5, 5, 0), 0.05).verdict == "non-inferior"
    assert judge(PairCounts(70, 20, 2, 8), 0.02).verdict == "inferior"
    undecided = judge(PairCounts(18, 1, 0, 1), 0.02)
    assert undecided.verdict == "undecided"
    assert undecided.lower_bound == tango(PairCounts(18, 1, 0, 1))[0]
    assert judge(PairCounts(190, 5, 5, 0), 0.05).n_needed is None
    assert judge(PairCounts(0, 0, 0, 0), 0.02).lower_bound is None


def test_without_a_discordant_pair_the_number_needed_is_an_upper_bound():
    assert pairs_needed(PairCounts(20, 0, 0, 0), 0.02) > pairs_needed(PairCounts(18, 1, 1, 0), 0.02)
    assert pairs_needed(PairCounts(0, 0, 0, 0), 0.02) is None
    assert pairs_needed(PairCounts(20, 0, 0, 0), 0.0) is None


@settings(max_examples=60, deadline=None)
@given(st.builds(PairCounts, *[st.integers(0, 40)] * 4).filter(lambda c: c.n), st.sampled_from(
    (0.02, 0.05, 0.1, 0.2)))  # fmt: skip
def test_a_verdict_is_that_of_the_score_test_at_the_margin(counts, margin):
    """Tango's statistic at the margin, its constrained chances found on a grid, not by a formula.

    Source: Tango 1998; non-inferior where the hypothesis of a loss of at least the margin is
    rejected at 2.5 %, inferior where that of a smaller loss is.
    """
    n, gained, lost = counts.n, counts.only_arm, counts.only_reference
    p_lost = np.linspace(margin, (1 + margin) / 2, 200_001)[1:-1]
    p_gained, same = p_lost - margin, counts.both + counts.neither
    rest = 1 - p_lost - p_gained
    likelihood = xlogy(gained, p_gained) + xlogy(lost, p_lost) + xlogy(same, rest)
    best = p_lost[np.argmax(likelihood)]
    error = math.sqrt(n * (2 * best - margin - margin**2))
    statistic = (gained - lost + n * margin) / error
    verdict = judge(counts, margin).verdict
    if abs(abs(statistic) - 1.96) > 0.01:
        expected = "non-inferior" if statistic > 1.96 else "inferior" if statistic < -1.96 else ""
        assert verdict == (expected or "undecided")


@pytest.mark.parametrize(
    "chances", [(0.02, 0.96, 0.02), (0.1, 0.88, 0.02), (0.2, 0.6, 0.2), (0.5, 0.5, 0.0)]
)  # of -1, 0, 1
def test_the_truth_is_refuted_in_5_percent_of_runs_however_often_one_looks(chances):
    rng, truth = np.random.default_rng(0), np.array([(1 + chances[2] - chances[0]) / 2])
    paths = rng.choice([0.0, 0.5, 1.0], p=chances, size=(400, 300))
    refuted = [largest_log_capital(path, truth)[0] >= math.log(1 / ERROR) for path in paths]
    assert np.mean(refuted) <= 0.05


def test_the_betting_interval_is_that_of_a_plain_loop():
    differences = np.random.default_rng(1).choice([-1, 0, 1], p=(0.2, 0.75, 0.05), size=60).tolist()
    low, high = betting_interval(differences)
    assert _is_kept(differences, (low + 0.001 + 1) / 2)
    assert _is_kept(differences, (high - 0.001 + 1) / 2)
    assert not _is_kept(differences, (low + 1) / 2)
    assert not _is_kept(differences, (high + 1) / 2)


def _is_kept(differences, mean):
    total, squares, variance, more, less = 0.5, 0.25, 0.25, 0.5, 0.5
    for t, difference in enumerate(differences, start=1):
        outcome = (difference + 1) / 2
        bet = math.sqrt(2 * math.log(40) / (variance * t * math.log(t + 1)))
        more *= 1 + min(bet, 0.5 / mean) * (outcome - mean)
        less *= 1 - min(bet, 0.5 / (1 - mean)) * (outcome - mean)
        if max(more, less) >= 20:
            return False
        total += outcome
        squares += (outcome - total / (t + 1)) ** 2
        variance = squares / (t + 1)
    return True


def test_looking_on_never_widens_the_interval_and_a_decision_stays():
    differences = np.random.default_rng(2).choice([-1, 0], p=(0.3, 0.7), size=200).tolist()
    intervals = [betting_interval(differences[:n]) for n in range(0, 201, 20)]
    assert intervals[0] == (-1, 1)
    for (low, high), (later_low, later_high) in pairwise(intervals):
        assert low <= later_low <= later_high <= high
    assert decided(differences[:4], 0.05) is None
    assert decided(differences, 0.05) == "inferior"
    assert decided([0] * 200, 0.05) == "non-inferior"
    assert judge_sequence(differences, 0.05).verdict == "inferior"
    assert judge_sequence([], 0.05).verdict == "undecided"


def test_swapping_the_arms_turns_the_betting_interval_round():
    differences = [-1, 0, 0, 1, -1, 0, -1, -1, 0, 0]
    low, high = betting_interval(differences)
    assert betting_interval([-d for d in differences]) == pytest.approx((-high, -low))
