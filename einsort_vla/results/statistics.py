"""Intervals and tests for success rates, single and paired.

A difference is always that of the compressed arm minus its reference, in -1 to 1; all intervals
are two-sided, of 95 % unless said otherwise. What is not defined, as with no trials, is None.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from msgspec.structs import astuple
from scipy.optimize import brentq
from scipy.stats import binomtest, bootstrap, norm

from einsort_vla.results.record import Record

Interval = tuple[float, float]
N_RESAMPLES = 5000
ONE_TAIL = 0.025  # error of one end of a 95 % interval
ALIKE = 1e-9  # numbers nearer than that, relative or absolute, differ by rounding alone
BRACKET = 1e-12  # how near the ends of its range the root of Tango's interval is looked for


class PairCounts(Record, frozen=True):
    """Successes of two arms over the same episodes."""

    both: int
    only_reference: int
    only_arm: int
    neither: int

    @property
    def n(self) -> int:
        return self.both + self.only_reference + self.only_arm + self.neither

    @property
    def of_arm(self) -> int:
        """Successes of the arm."""
        return self.both + self.only_arm

    @property
    def of_reference(self) -> int:
        return self.both + self.only_reference

    @property
    def discordant(self) -> int:
        """Pairs of which only one succeeded."""
        return self.only_reference + self.only_arm

    @property
    def difference(self) -> float | None:
        """Success rate of the arm minus that of its reference."""
        return (self.only_arm - self.only_reference) / self.n if self.n else None

    @property
    def swapped(self) -> "PairCounts":
        """The same pairs with arm and reference exchanged."""
        return PairCounts(self.both, self.only_arm, self.only_reference, self.neither)


def wilson(successes: int, n: int) -> Interval | None:
    """The Wilson score interval of a proportion."""
    if not n:
        return None
    bounds = binomtest(successes, n).proportion_ci(method="wilson")
    return float(bounds.low), float(bounds.high)


def newcombe(counts: PairCounts) -> Interval | None:
    """Interval of the paired difference: square and add two Wilson intervals and a correlation.

    Source: Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10.
    """
    n = counts.n
    reference, arm = wilson(counts.of_reference, n), wilson(counts.of_arm, n)
    if reference is None or arm is None:
        return None
    p_reference, p_arm = counts.of_reference / n, counts.of_arm / n
    phi, difference = _phi(counts), p_arm - p_reference
    below = _side(p_arm - arm[0], reference[1] - p_reference, phi)
    above = _side(arm[1] - p_arm, p_reference - reference[0], phi)
    return difference - below, difference + above


def _phi(counts: PairCounts) -> float:
    """Correlation of the pairs, shrunk towards 0 by half a trial in each cell when positive."""
    a, b, c, d = counts.both, counts.only_reference, counts.only_arm, counts.neither
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    if not margins:
        return 0.0
    excess = a * d - b * c
    return (max(excess - counts.n / 2, 0) if excess > 0 else excess) / math.sqrt(margins)


def _side(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0))


def tango(counts: PairCounts, confidence: float = 0.95) -> Interval | None:
    """Interval of the paired difference that the score test does not reject.

    It is not degenerate where the two arms never differ.

    Source: Tango 1998, Statistics in Medicine 17:891-908.
    """
    if not counts.n:
        return None
    z = float(norm.ppf((1 + confidence) / 2))
    return _tango_lower(counts, z), -_tango_lower(counts.swapped, z)


def _tango_lower(counts: PairCounts, z: float) -> float:
    n, gained, lost = counts.n, counts.only_arm, counts.only_reference
    if lost == n:
        return -1.0

    def excess(difference: float) -> float:
        variance = n * score_variance(gained / n, lost / n, difference)
        return gained - lost - n * difference - z * math.sqrt(variance)

    root = brentq(excess, BRACKET - 1, (gained - lost) / n - BRACKET, xtol=1e-10)
    return cast(float, root)


def score_variance(gained: float, lost: float, difference: float) -> float:
    """n times the variance of the paired difference, were the true one `difference`.

    Args:
        gained: share of pairs in which only the arm succeeded.
        lost: share in which only the reference did; its maximum-likelihood estimate under the
            constraint p(gained) - p(lost) = difference has a closed form.

    Source: Tango 1998, the estimate and the variance inside the score.
    """
    a = 2.0
    b = (2 - gained + lost) * difference - gained - lost
    c = -lost * difference * (1 - difference)
    p_lost = (math.sqrt(max(b * b - 4 * a * c, 0)) - b) / (2 * a)
    return max(2 * p_lost + difference * (1 - difference), 0)


def mcnemar_p(counts: PairCounts) -> float | None:
    """Two-sided p-value of McNemar's exact test that both arms succeed equally often.

    A sign test on the discordant pairs; 1 where none is.
    """
    if not counts.n:
        return None
    if not counts.discordant:
        return 1.0
    return float(binomtest(counts.only_arm, counts.discordant).pvalue)


def bootstrap_interval(
    data: Sequence[Any],
    statistic: Callable[..., Any] = np.mean,
    seed: int = 0,
    limits: Interval | None = None,
) -> Interval | None:
    """Percentile interval of a statistic of samples of one length, resampled together.

    Samples that are all alike resample to themselves: the percentiles then have no width, however
    few the samples are, and say nothing. `alike_interval` takes their place.

    Args:
        data: samples, (n,) each.
        statistic: a mean of the samples along `axis`.
        seed: of the resampling.
        limits: that each sample lies in by its nature; None where it has none.

    Returns:
        None for fewer than two, and for samples that are all alike and have no limits.
    """
    n = len(data[0])
    if n < 2:
        return None
    found = bootstrap(
        data, statistic, paired=len(data) > 1, n_resamples=N_RESAMPLES, method="percentile",
        batch=200, rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    low, high = float(found.low), float(found.high)
    if math.isclose(low, high, rel_tol=ALIKE, abs_tol=ALIKE):
        return limits and alike_interval(low, n, limits)
    return low, high


def alike_interval(value: float, n: int, limits: Interval) -> Interval:
    """Interval of the mean of a bounded number of which `n` samples were all `value`.

    At most the share 1 - 0.025^(1/n) of all samples differs from `value`: the exact bound of
    Clopper and Pearson 1934, Biometrika 26:404-413, for none seen in n. Those that differ lie at
    most at the limits. For scores of 0 and 1 it is their interval of a proportion.
    """
    differing = 1 - ONE_TAIL ** (1 / n)
    low, high = limits
    return value - differing * (value - low), value + differing * (high - value)


def ratio_of_sums(numbers: np.ndarray, counts: np.ndarray, axis: int = -1) -> np.ndarray:
    """For `bootstrap_interval`: all numbers over all that they were counted on."""
    return numbers.sum(axis) / counts.sum(axis)


def clustered_bootstrap(task_pairs: Sequence[PairCounts]) -> Interval | None:
    """Percentile interval of the difference with whole tasks resampled, as for other tasks alike.

    Where all tasks have the same difference, whole tasks say no more than their pairs, and Tango's
    interval over all pairs is given. None for fewer than two tasks with pairs.
    """
    tasks = [task for task in task_pairs if task.n]
    differences = [task.only_arm - task.only_reference for task in tasks]
    if len(tasks) < 2:
        return None
    found = bootstrap_interval((differences, [task.n for task in tasks]), ratio_of_sums)
    totals = np.sum([astuple(task) for task in tasks], axis=0).tolist()
    return found or tango(PairCounts(*totals))
