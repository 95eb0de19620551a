"""Numbers of a report as a person reads them; what is not known yet is a dash, never 0."""

from collections.abc import Sequence

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"

Bounds = Sequence[float] | None


def percent(share: float | None, digits: int = 1) -> str:
    """0.925 -> "92.5 %"."""
    return DASH if share is None else f"{100 * share:.{digits}f} %"


def percent_range(bounds: Bounds) -> str:
    """(0.85, 0.967) -> "85.0 to 96.7 %"."""
    return DASH if bounds is None else f"{100 * bounds[0]:.1f} to {100 * bounds[1]:.1f} %"


def points(difference: float | None) -> str:
    """-0.025 -> "-2.5" with a typographic minus, in percentage points."""
    return DASH if difference is None else signed(100 * difference, 1)


def points_range(bounds: Bounds) -> str:
    """(-0.025, 0.01) -> "-2.5 to +1.0", in percentage points."""
    return DASH if bounds is None else f"{points(bounds[0])} to {points(bounds[1])}"


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


def count(arm: dict) -> str:
    """Successes of episodes of an arm or of its part: "37/40"; errors are named, not counted."""
    errors = arm.get("errors") or 0
    noun = "error" if errors == 1 else "errors"
    return f"{arm['successes']}/{arm['episodes']}" + (f" ({errors} {noun})" if errors else "")


def measured(value: float | None, unit: str) -> str:
    """A number of a `Measure`: a share of unit "%" as percent, else four digits, as 15.46."""
    if value is None or unit == "%":
        return percent(value)
    text = f"{value:.4g}" if abs(value) < 1e6 else f"{value:.2e}"
    return f"{text.replace('-', MINUS)} {unit}".rstrip()


def measured_range(low: float | None, high: float | None, unit: str) -> str:
    """Of its interval: "40.1 to 44.0 %"; a dash where none can be given."""
    if low is None or high is None:
        return DASH
    if unit == "%":
        return percent_range((low, high))
    return f"{measured(low, '')} to {measured(high, unit)}"


def opening(text: str) -> str:
    """With a capital first letter, and all others as they are."""
    return text[:1].upper() + text[1:]
