"""How compression changed the motion of the arm, as a person reads it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from einsort_vla.results import wording
from einsort_vla.results.measures import Estimate
from einsort_vla.results.motion import METRICS, Metric
from einsort_vla.results.report import ClosedLoop


@dataclass(frozen=True)
class Change:
    """A metric of one arm against its dense arm."""

    text: str
    interval: str
    places: list[float] | None  # of lower bound, value and upper bound; percent of a drawn scale
    direction: str  # "more", "less", or "" where the interval holds no change


def motion_changes(loop: ClosedLoop) -> list[tuple[Metric, dict[str, Change | None]]]:
    """Each metric, and its change in each paired arm; None where no pair has it.

    The scale of a metric is the same for all arms; 50 percent of it is no change.
    """
    return [
        (metric, _changes(metric, {arm: pair.motion.get(key) for arm, pair in loop.pairs.items()}))
        for key, metric in METRICS.items()
    ]


def _changes(metric: Metric, found: Mapping[str, Estimate | None]) -> dict[str, Change | None]:
    places = [abs(_place(metric, bound)) for change in found.values() if change
              for bound in change.interval or ()]  # fmt: skip
    scale = max(places, default=0)
    return {arm: change and _change(metric, change, scale) for arm, change in found.items()}


def _change(metric: Metric, change: Estimate, scale: float) -> Change:
    text, interval = wording.changed(change, metric.compared, metric.digits)
    if change.interval is None:
        return Change(text, interval, None, "")
    low, high = change.interval
    places = [_place(metric, value) for value in (low, change.value, high)]
    direction = "more" if places[0] > 0 else "less" if places[2] < 0 else ""
    drawn = [50 + 50 * place / scale if scale else 50 for place in places]
    return Change(text, interval, drawn, direction)


def _place(metric: Metric, value: float) -> float:
    """0 for no change, positive for more than dense; of ratios the logarithm."""
    return math.log(value) if metric.compared == "ratio" else value
