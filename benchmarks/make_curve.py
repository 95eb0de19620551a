"""The constants of the `curve` code: factors and flips of its polynomials, and predicted errors.

python -m benchmarks.make_curve

Polynomials are compared on the same Gaussian streams, in rounds with fewer of them and more
streams; printed are the best of each window, and the gaps of every code. Nothing is written.
"""

import sys
from dataclasses import dataclass

import torch
from rich.console import Console

from einsort_vla.cli.run import run_command
from einsort_vla.codec.curve import values
from einsort_vla.codec.curve.layout import SEGMENT
from einsort_vla.codec.curve.search import Search
from einsort_vla.codec.curve.values import CURVE_EIGHTHS, POLYNOMIALS, fill, window_values

JUDGED = (8, 12, 16, 20, 24, 32, 40)  # eighths
ROUNDS = ((16, (16,), 32), (128, (8, 16, 24, 32), 256), (1024, (16, *JUDGED), 2**15))
"""Streams, rates that count, and what share of the polynomials is left: one in so many."""


@dataclass(frozen=True)
class Settings:
    """Find the constants of the curve code."""

    windows: tuple[int, ...] = tuple(POLYNOMIALS)
    """Window lengths."""
    effort: int = 2**27
    """Polynomials of a window times its values, at most; 0 keeps what there is, and measures it."""
    streams: int = 2048
    """Of 128 Gaussian weights, to measure each code on."""


def main(settings: Settings, console: Console) -> int:
    """Search and measure, window by window."""
    for window in settings.windows:
        if n := min(2**15, settings.effort >> window):
            POLYNOMIALS[window] = _best(window, n)
        factor, flip = POLYNOMIALS[window]
        gaps = [100 * gap_db(window, k, settings.streams, 99) for k in CURVE_EIGHTHS]
        console.print(f"{window}: ({factor}, {flip:#06x})", [round(gap) for gap in gaps])
    return 0


def _best(window: int, n: int) -> tuple[int, int]:
    generator = torch.Generator().manual_seed(window)
    if window < 16:
        factors = 2 * torch.randperm(2**15, generator=generator)[:n] + 1
        flips = torch.full((n,), 2**16 - 2**window)
    else:
        factors = 2 * torch.randint(2**31, (n,), generator=generator) + 1
        flips = torch.randint(2**16, (n,), generator=generator)
    left = list(zip(factors.tolist(), flips.tolist(), strict=True))
    for seed, (streams, rates, share) in enumerate(ROUNDS):
        judged = []
        for own in left:
            POLYNOMIALS[window] = own
            judged.append((sum(gap_db(window, k, streams, seed) for k in rates), own))
        left = [own for _, own in sorted(judged)[: max(1, n // share)]]
    return left[0]


def gap_db(window: int, eighths: int, streams: int, seed: int) -> float:
    """Error of a code on Gaussian streams, in decibels above the bound; scales are not counted."""
    values.window_values.cache_clear()
    targets = torch.randn(streams, SEGMENT, generator=torch.Generator().manual_seed(seed))
    step = fill(eighths / 8) * window_values(window, targets.device).float().std()
    found = Search(eighths, window).find(targets * step)[1].double()
    energy = found.square().sum()
    if not energy:
        return torch.inf
    missing = targets - (found * targets).sum() / energy * found
    error = missing.square().sum() / targets.square().sum()
    return float(10 * torch.log10(error * 4.0 ** (eighths / 8)))


if __name__ == "__main__":
    sys.exit(run_command(Settings, main, "benchmarks/make_curve.py"))
