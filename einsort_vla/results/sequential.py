"""Intervals that hold however often one looks, for runs that stop as soon as they are decided."""

import math
from collections.abc import Sequence

import numpy as np

from einsort_vla.results.noninferiority import NonInferiority, Verdict, compare
from einsort_vla.results.statistics import Interval

ERROR = 0.05
N_MEANS = 2001  # candidates for the difference, 0.001 apart
LARGEST_BET = 0.5  # share of the capital that one pair can cost


def betting_interval(differences: Sequence[int]) -> Interval:
    """The differences that no gambler has refuted yet: a 95 % confidence sequence.

    Against each candidate mean one bets half the capital on more and half on less, by what the
    earlier pairs showed; a candidate is refuted for good once the capital is 1 / 0.05 times the
    first. It holds at all times at once if each pair has the same expected difference given the
    earlier ones, so episodes must come in an order that mixes the tasks.

    Args:
        differences: -1 (only the reference succeeded), 0 or 1 per pair, in the order they came.

    Source: hedged capital of Waudby-Smith and Ramdas 2024, JRSS-B 86:1-27, section 4
    (arXiv:2010.09686), with its predictable plug-in bets.
    """
    if not len(differences):
        return -1.0, 1.0
    outcomes = (np.asarray(differences, dtype=float) + 1) / 2  # (n,) in 0 to 1
    means = np.linspace(0, 1, N_MEANS)
    capital = largest_log_capital(outcomes, means)
    kept = np.flatnonzero(capital < math.log(1 / ERROR))
    if not len(kept):  # happens to 5 % of all sequences at most
        kept = np.array([np.argmin(capital)])
    # What lies between the last candidate kept and the first one refuted is not refuted.
    low, high = max(kept[0] - 1, 0), min(kept[-1] + 1, N_MEANS - 1)
    return 2 * float(means[low]) - 1, 2 * float(means[high]) - 1


def decided(differences: Sequence[int], margin: float) -> Verdict | None:
    """What is settled whatever the next pairs show, or None."""
    verdict = compare(betting_interval(differences), margin)
    return None if verdict == "undecided" else verdict


def judge_sequence(differences: Sequence[int], margin: float) -> NonInferiority:
    """The verdict of a run that may have stopped at any time because of what it saw."""
    if not differences:
        return NonInferiority(margin, "undecided", None, None)
    interval = betting_interval(differences)
    return NonInferiority(margin, compare(interval, margin), interval[0], None)


def largest_log_capital(outcomes: np.ndarray, means: np.ndarray) -> np.ndarray:
    """(n_means,) largest logarithm of the capital that was ever held against each mean.

    Args:
        outcomes: (n,) in 0 to 1.
        means: (n_means,) in 0 to 1.
    """
    bets = _bets(outcomes)[:, None]  # (n, 1)
    excess = outcomes[:, None] - means  # (n, n_means)
    with np.errstate(divide="ignore"):  # no outcome is below 0 or above 1: any bet is safe there
        on_more = np.minimum(bets, LARGEST_BET / means)
        on_less = np.minimum(bets, LARGEST_BET / (1 - means))
    more = np.cumsum(np.log1p(on_more * excess), axis=0)
    less = np.cumsum(np.log1p(-on_less * excess), axis=0)
    return np.maximum(more, less).max(axis=0) - math.log(2)


def _bets(outcomes: np.ndarray) -> np.ndarray:
    """(n,) bet on each outcome, from the mean and the variance of those before it."""
    t = np.arange(1, len(outcomes) + 1)
    mean = (0.5 + np.cumsum(outcomes)) / (t + 1)
    variance = (0.25 + np.cumsum((outcomes - mean) ** 2)) / (t + 1)
    before = np.concatenate(([0.25], variance[:-1]))
    return np.sqrt(2 * math.log(2 / ERROR) / (before * t * np.log(t + 1)))
