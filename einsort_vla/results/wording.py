"""Numbers of a report as a person reads them; what is not known yet is a dash, never 0."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from einsort_vla.results.measures import Estimate, Measure, PairedAs

if TYPE_CHECKING:
    from einsort_vla.results.report import Tally

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"


def percent(share: float | None, digits: int = 1) -> str:
    """0.925 -> "92.5 %"."""
    return DASH if share is None else f"{100 * share:.{digits}f} %"


def points(difference: float) -> str:
    """-0.025 -> "-2.5" with a typographic minus, in percentage points."""
    return signed(100 * difference, 1)


def points_range(bounds: Sequence[float] | None) -> str:
    """(-0.025, 0.01) -> "-2.5 to +1.0", in percentage points."""
    return " to ".join(map(points, bounds)) if bounds else DASH


def signed(value: float, digits: int) -> str:
    """-0.5 -> "-0.5", 0.5 -> "+0.5"; what rounds to 0 has no sign."""
    text = f"{value:+.{digits}f}".replace("-", MINUS)
    return text if float(f"{value:.{digits}f}") else text[1:]


def number(value: float | None, digits: int = 2) -> str:
    """Rounded, with a typographic minus."""
    return DASH if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def p_value(p: float | None) -> str:
    """Three digits; what would round to 0 is "< 0.001"."""
    if p is None:
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def megabytes(n_bytes: int | None) -> str:
    """16033358 -> "16.03 MB"."""
    return DASH if n_bytes is None else f"{n_bytes / 1e6:.2f} MB"


def count(tally: "Tally") -> str:
    """Successes of episodes: "37/40"; errors are named, not counted."""
    errors = f" ({n_of(tally.errors, 'errors')})" if tally.errors else ""
    return f"{tally.successes}/{tally.episodes}{errors}"


def n_of(n: int, nouns: str) -> str:
    """ "1 episode", "12 episodes"."""
    return f"{n:,} {nouns.removesuffix('s') if n == 1 else nouns}"


def about(n: int) -> str:
    """5123 -> "5,100": two digits are all that such a number has."""
    return f"{int(float(f'{n:.2g}')):,}"


def listed(parts: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *others, last = parts
    return f"{', '.join(others)} and {last}" if others else last


def changed(change: Estimate, paired_as: PairedAs, digits: int) -> tuple[str, str]:
    """A ratio as "x 1.30", a difference with its sign; and its interval as "1.20 to 1.40"."""
    form, times = (number, f"{TIMES} ") if paired_as == "ratio" else (signed, "")
    interval = " to ".join(form(bound, digits) for bound in change.interval or ())
    return times + form(change.value, digits), interval or DASH


def change(measure: Measure, pair: Estimate) -> tuple[str, str]:
    """A paired estimate and its interval: "-2.5 points" and "-5.0 to +0.1"."""
    if measure.unit == "%" and measure.paired_as == "difference":
        return f"{points(pair.value)} points", points_range(pair.interval)
    value, interval = changed(pair, measure.paired_as, 3)
    return value if measure.paired_as == "ratio" else f"{value} {measure.unit}".rstrip(), interval


def measured(value: float, unit: str) -> str:
    """A number of a `Measure`: a share of unit "%" as percent, else four digits, as 15.46."""
    if unit == "%":
        return percent(value)
    text = f"{value:.4g}" if abs(value) < 1e6 else f"{value:.2e}"
    return f"{text.replace('-', MINUS)} {unit}".rstrip()


def estimated(estimate: Estimate, unit: str) -> tuple[str, str]:
    """A number of a `Measure` and its interval: "42.0 %" and "40.1 to 44.0 %"."""
    bounds = [measured(bound, unit) for bound in estimate.interval or ()]
    interval = f"{bounds[0].removesuffix(f' {unit}')} to {bounds[1]}" if bounds else DASH
    return measured(estimate.value, unit), interval


def opening(text: str) -> str:
    """With a capital first letter, and all others as they are."""
    return text[:1].upper() + text[1:]


def escaped(text: str) -> str:
    """A text with other people's names as one line of Markdown, without markup of theirs."""
    return re.sub(r"([\\`\[\]<|])", r"\\\1", " ".join(text.split()))
