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
    16: (60341, 56759),
}
"""Window length to (factor, flip); found by benchmarks/make_curve.py.

Below 16 bits `flip` is all bits above the window, so that one instruction clears what is older and
flips.
"""

DEFAULT_WINDOW = 13
# What a row's root mean square is scaled to, in that of the values, at 1, 2, 3, 4 and 5 bits.
# Values end at 3 of their own; the finer a code, the more it costs not to reach what lies beyond.
FILL = (1.08, 0.955, 0.905, 0.862, 0.82)
# Hundredths of a decibel above the bound of a Gaussian source at 1, 1 1/8, ... 5 bits; measured on
# 262,144 weights by benchmarks/make_curve.py. Grids: on rows of 2048 weights.
GAPS = {
    10: (
        65, 70, 74, 77, 82, 84, 88, 92, 92, 97, 100, 103, 107, 109, 114, 118, 119, 126, 132, 140,
        145, 151, 156, 160, 161, 173, 182, 192, 203, 208, 213, 216, 218,
    ),
    12: (
        53, 56, 59, 62, 64, 67, 70, 71, 73, 74, 76, 79, 81, 83, 85, 88, 88, 91, 95, 98, 102, 104,
        106, 110, 115, 119, 120, 126, 128, 132, 138, 142, 145,
    ),
    13: (
        46, 49, 51, 54, 55, 59, 60, 61, 59, 62, 66, 69, 72, 78, 81, 79, 78, 82, 85, 86, 90, 92, 98,
        104, 111, 106, 107, 110, 113, 117, 121, 126, 127,
    ),
    14: (
        42, 44, 47, 49, 50, 53, 56, 57, 59, 60, 63, 65, 67, 69, 70, 72, 74, 76, 79, 82, 85, 87, 90,
        91, 93, 96, 100, 104, 107, 113, 117, 120, 124,
    ),
    16: (
        41, 43, 45, 46, 47, 50, 50, 53, 52, 53, 53, 54, 55, 56, 56, 57, 57, 59, 61, 63, 65, 65, 67,
        68, 68, 71, 73, 76, 77, 79, 82, 83, 84,
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
