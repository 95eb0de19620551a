"""How compression changed the motion of the arm, as a person reads it."""

import math
from dataclasses import dataclass
from typing import Any

from einsort_vla.results import wording

TIMES = "\N{MULTIPLICATION SIGN}"


@dataclass(frozen=True)
class Metric:
    """The name of a number of `Motion`, and what it means in one line."""

    key: str
    title: str
    meaning: str
    digits: int = 2


METRICS = (
    Metric("path_m", "Path", "way of the hand to the end of the episode"),
    Metric("jerk_m_s3", "Jerk", "root mean square of the third derivative of its position"),
    Metric("duration_s", "Duration", "robot time to success or to the end of the budget"),
    Metric("gripper_toggles", "Gripper toggles", "changes between open and close, an episode"),
    Metric("seam_jump", "Seam jump", "jump of the action where a new chunk begins", 4),
    Metric("saturation", "Saturation", "share of commanded numbers outside -1 to 1", 4),
)


@dataclass(frozen=True)
class Change:
    """A metric of one arm against its dense arm."""

    text: str
    interval: str
    places: list[float] | None  # of lower bound, value and upper bound; percent of a drawn scale
    direction: str  # "more", "less", or "" where the interval holds no change


def motion_changes(report: dict[str, Any]) -> list[tuple[Metric, dict[str, Change | None]]]:
    """Each metric, and its change in each paired arm; None where no pair has it.

    The scale of a metric is the same for all arms; 50 percent of it is no change.
    """
    motions = {arm: pair["motion"] for arm, pair in report["paired"].items()}
    return [
        (metric, _changes(metric, {arm: motion[metric.key] for arm, motion in motions.items()}))
        for metric in METRICS
    ]


def _changes(metric: Metric, found: dict[str, dict[str, Any]]) -> dict[str, Change | None]:
    places = [abs(_place(c, bound)) for c in found.values() for bound in c["interval95"] or []]
    scale = max(places, default=0)
    return {arm: _change(metric, change, scale) for arm, change in found.items()}


def _change(metric: Metric, change: dict[str, Any], scale: float) -> Change | None:
    is_ratio = "ratio" in change
    value, bounds = change["ratio" if is_ratio else "difference"], change["interval95"]
    if value is None:
        return None
    number = wording.number if is_ratio else wording.signed
    text = f"{TIMES} " * is_ratio + number(value, metric.digits)
    if bounds is None:
        return Change(text, wording.DASH, None, "")
    low, middle, high = (_place(change, v) for v in (bounds[0], value, bounds[1]))
    places = [50 + 50 * place / scale if scale else 50 for place in (low, middle, high)]
    direction = "more" if low > 0 else "less" if high < 0 else ""
    interval = " to ".join(number(bound, metric.digits) for bound in bounds)
    return Change(text, interval, places, direction)


def _place(change: dict[str, Any], value: float) -> float:
    """0 for no change, positive for more than dense; of ratios the logarithm."""
    return math.log(value) if "ratio" in change else value
