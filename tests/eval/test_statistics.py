"""Intervals against published worked examples."""

import pytest

from eval.statistics import pair_counts, paired_difference, wilson


def test_wilson_against_newcombe_1998_table():
    # Newcombe 1998, Statistics in Medicine 17:857-872, table I, score method without correction.
    for successes, n, low, high in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
                                    (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)]:  # fmt: skip
        assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_no_trials_give_no_interval():
    assert wilson(0, 0) is None
    assert paired_difference(0, 0, 0, 0) is None


def test_paired_difference_against_newcombe_1998b():
    # Newcombe 1998, Statistics in Medicine 17:2635-2650, table III, method 10.
    difference, interval = paired_difference(36, 2, 12, 0)
    assert difference == pytest.approx(0.2)
    assert interval == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_exchanging_the_arms_turns_the_interval_round():
    difference, (low, high) = paired_difference(30, 7, 3, 10)
    turned, (low2, high2) = paired_difference(30, 3, 7, 10)
    assert (difference, low, high) == pytest.approx((-turned, -high2, -low2))


def test_pair_counts():
    pairs = [(True, True), (True, False), (True, False), (False, True), (False, False)]
    assert list(pair_counts(pairs).values()) == [1, 2, 1, 1]
