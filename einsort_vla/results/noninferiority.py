"""Is an arm worse than its reference by no more than a margin?"""

import math
from typing import Literal

from scipy.stats import beta, norm

from einsort_vla.results.record import Record
from einsort_vla.results.statistics import PairCounts, score_variance, tango

Verdict = Literal["non-inferior", "inferior", "undecided"]
ONE_SIDED_ERROR, POWER = 0.025, 0.8  # the error is that of one end of a 95 % interval
RARE = 0.05  # error of the bound on the discordance where none was seen


class NonInferiority(Record, frozen=True):
    """A verdict at one margin; all but `n_needed` in units of the success rate."""

    margin: float
    verdict: Verdict
    lower_bound: float | None  # of the difference, arm minus reference
    n_needed: int | None  # pairs for POWER if the true difference is 0; None when decided


def judge(counts: PairCounts, margin: float) -> NonInferiority:
    """The verdict of Tango's 95 % interval on pairs whose number was fixed beforehand."""
    interval = tango(counts)
    if interval is None:
        return NonInferiority(margin, "undecided", None, None)
    verdict = compare(interval, margin)
    needed = pairs_needed(counts, margin) if verdict == "undecided" else None
    return NonInferiority(margin, verdict, interval[0], needed)


def compare(interval: tuple[float, float], margin: float) -> Verdict:
    """Where the interval of a difference lies against -margin."""
    low, high = interval
    if low > -margin:
        return "non-inferior"
    return "inferior" if high < -margin else "undecided"


def pairs_needed(counts: PairCounts, margin: float) -> int | None:
    """Pairs that show non-inferiority with 80 % power if the arms truly succeed equally often.

    The share of discordant pairs is the one seen so far; where none was seen, its exact upper
    95 % bound, so that the number is then an upper bound too. None without pairs or margin.

    Source: the score test of Tango 1998 has mean margin and variance v1 / n at no difference, and
    variance v0 / n at -margin: n = ((z_error sqrt(v0) + z_power sqrt(v1)) / margin)^2, as in
    Nam 1997, Biometrics 53:1422-1430.
    """
    if not counts.n or margin <= 0:
        return None
    share = counts.discordant / counts.n or float(beta.ppf(1 - RARE, 1, counts.n))
    at_margin = score_variance(share / 2, share / 2, -margin)
    z_error, z_power = norm.ppf(1 - ONE_SIDED_ERROR), norm.ppf(POWER)
    root = (z_error * math.sqrt(at_margin) + z_power * math.sqrt(share)) / margin
    return math.ceil(root**2)
