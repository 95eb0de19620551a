"""Intervals for success rates, single and paired."""

import math
from collections.abc import Sequence

import numpy as np
from statsmodels.stats.proportion import proportion_confint

Interval = tuple[float, float]


def wilson(successes: int, n: int) -> Interval | None:
    """The 95 % Wilson score interval of a proportion; None without trials."""
    if not n:
        return None
    bounds = proportion_confint(successes, n, method="wilson")
    low, high = (np.asarray(bound).item() for bound in bounds)
    return low, high


def paired_difference(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[float, Interval] | None:
    """Second proportion minus first on the same trials, with 95 % interval; None without trials.

    Newcombe's square-and-add interval from two Wilson intervals and their correlation.

    Source: Newcombe 1998, Statistics in Medicine 17:2635-2650, method 10.
    """
    n = both + only_first + only_second + neither
    first, second = wilson(both + only_first, n), wilson(both + only_second, n)
    if first is None or second is None:
        return None
    p1, p2 = (both + only_first) / n, (both + only_second) / n
    phi = _phi(both, only_first, only_second, neither)
    below = _hypot(p2 - second[0], first[1] - p1, phi)
    above = _hypot(second[1] - p2, p1 - first[0], phi)
    return p2 - p1, (p2 - p1 - below, p2 - p1 + above)


def _phi(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Correlation of the pairs, shrunk towards 0 by half a trial in each cell when positive."""
    n = both + only_first + only_second + neither
    margins = math.prod(
        (both + only_first, only_second + neither, both + only_second, only_first + neither)
    )
    if not margins:
        return 0.0
    excess = both * neither - only_first * only_second
    return (max(excess - n / 2, 0) if excess > 0 else excess) / math.sqrt(margins)


def _hypot(a: float, b: float, phi: float) -> float:
    return math.sqrt(max(a * a - 2 * phi * a * b + b * b, 0))


def pair_counts(pairs: Sequence[tuple[bool, bool]]) -> dict[str, int]:
    """Counts of (dense, compressed) success over episodes that both arms finished."""
    return {
        "both": sum(d and c for d, c in pairs),
        "only_dense": sum(d and not c for d, c in pairs),
        "only_compressed": sum(c and not d for d, c in pairs),
        "neither": sum(not d and not c for d, c in pairs),
    }
