"""What a window of the stream stands for, and how many bits each weight adds to the stream.

The values of all windows of a length, sorted, are the quantile curve of a Gaussian: the sum of the
four bytes of a product, each of which is nearly uniform. Which window has which value is the order
of a permutation polynomial modulo 2^32 (the EinSort paper's appendix M), so that neither the curve
nor the order is stored.
"""

import functools

import torch
from torch import Tensor

PERIOD = 8  # weights, after which the numbers of new bits are the same again
CURVE_EIGHTHS = range(8, 41)  # of a bit a weight
GRIDS = (6, 7, 8)  # bits: windows that hold their own bits alone, and are the values themselves

POLYNOMIALS = {
    10: (34223, 0xFC00),
    12: (34759, 0xF000),
    13: (34481, 0xE000),
    14: (38317, 0xC000),
    16: (2038493529, 0xC39B),
}
"""Window length to (factor, flip); found by benchmarks/make_curve.py.

Below 16 bits `flip` is all bits above the window, so that one instruction clears what is older and
flips, and a factor has 16 bits. Of 16 bits few such factors are good: it has 32.
"""

DEFAULT_WINDOW = 13
# What a row's root mean square is scaled to, in that of the values, at 1, 2, 3, 4 and 5 bits.
# Values end at 3 of their own; the finer a code, the more it costs not to reach what lies beyond.
FILL = (1.08, 0.955, 0.905, 0.862, 0.82)
# Hundredths of a decibel above the bound of a Gaussian source at 1, 1 1/8, ... 5 bits; measured on
# 262,144 weights by benchmarks/make_curve.py. Grids: on rows of 2048 weights.
GAPS = {
    10: (
        65, 70, 74, 77, 81, 84, 88, 91, 91, 97, 100, 103, 107, 109, 113, 117, 119, 126, 132, 140,
        145, 151, 156, 160, 161, 173, 182, 191, 203, 207, 213, 216, 218,
    ),
    12: (
        53, 56, 59, 62, 64, 67, 69, 71, 72, 74, 76, 79, 80, 83, 85, 87, 87, 90, 94, 97, 101, 103,
        106, 109, 113, 117, 119, 125, 127, 132, 137, 142, 144,
    ),
    13: (
        46, 49, 51, 54, 55, 59, 60, 60, 58, 61, 65, 68, 71, 77, 80, 78, 77, 81, 83, 85, 88, 91, 96,
        102, 110, 105, 105, 109, 112, 115, 120, 125, 126,
    ),
    14: (
        42, 44, 47, 49, 50, 53, 55, 57, 58, 59, 62, 64, 66, 68, 69, 71, 72, 75, 78, 81, 83, 85, 88,
        90, 91, 95, 98, 102, 106, 111, 115, 118, 121,
    ),
    16: (
        36, 37, 38, 37, 38, 41, 42, 43, 45, 45, 46, 48, 49, 51, 51, 53, 54, 56, 57, 58, 60, 62, 64,
        65, 67, 68, 70, 71, 73, 76, 76, 79, 81,
    ),
}  # fmt: skip
GRID_GAPS = {6: 630, 7: 667, 8: 661}


@functools.lru_cache(maxsize=64)
def window_values(window: int, device: torch.device) -> Tensor:
    """(2^window,) int32, each within -128 and 127."""
    windows = torch.arange(2**window, device=device)
    if window in GRIDS:
        return (windows - 2 ** (window - 1)).int()
    factor, flip = POLYNOMIALS[window]
    product = (windows ^ flip) * factor
    total = sum(product >> 8 * k & 0xFF for k in range(4))
    assert isinstance(total, Tensor)
    return (total - 508 >> 2).int()  # less the mean of the sum, in quarters


def new_bits(eighths: int, n: int) -> list[int]:
    """Bits that each of the first `n` weights of a stream adds: as even as whole numbers can be."""
    return [(i + 1) * eighths // PERIOD - i * eighths // PERIOD for i in range(n)]


def predicted_gap_db(eighths: int, window: int) -> float:
    """How far a code's error on Gaussian weights lies above the bound 2^(-2 bits), in decibels."""
    if window in GRIDS:
        return GRID_GAPS[window] / 100
    return GAPS[window][eighths - CURVE_EIGHTHS.start] / 100


def fill(bits: float) -> float:
    """`FILL` at any number of bits from 1 to 5, by straight lines."""
    low = min(int(bits), len(FILL) - 1)
    return FILL[low - 1] + (bits - low) * (FILL[low] - FILL[low - 1])
