"""A measure of a text evaluation against size, as SVG for a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from einsort_vla.results.drawing import (
    INK,
    MUTED,
    SERIES,
    bits_axis,
    by_codec,
    draw_points,
    inline_svg,
    new_figure,
    style,
)
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.wording import measured, measured_range

LOG_FROM = 4.0  # values that far apart, as a ratio, are drawn on a logarithmic axis


def measure_curve(
    measure: Measure,
    arms: Mapping[str, Mapping[str, Any]],
    colours: Mapping[str, int],
    salt: str = "",
) -> str | None:
    """Value against bits a weight, with its intervals; None without a compressed arm.

    Args:
        measure: one number of every arm.
        arms: codec and compression of each, as in `Findings`.
        colours: number of each codec's colour.
        salt: what tells this figure from others of the same page.
    """
    found = {name: estimate for name, estimate in measure.arms.items() if estimate.n}
    coded = {name: dict(arms[name]) for name in found if arms[name]["compression"]}
    if not coded:
        return None
    dense = next((estimate for name, estimate in found.items() if name not in coded), None)
    with style(f"{measure.name}{salt}"):
        figure, axes = new_figure()
        if dense:
            axes.axhline(dense.value, color=INK, lw=1.2)
            axes.axhspan(*_bounds(dense), color=MUTED, alpha=0.16, lw=0)
        for codec, group, x in by_codec(coded):
            values = [(found[name].value, _bounds(found[name])) for name in group]
            draw_points(axes, x, values, SERIES[colours[codec]])
        _value_axis(axes, measure, [estimate.value for estimate in found.values()])
        bits_axis(axes, coded)
        told = [f"{name} {told_of(e, measure.unit)}" for name, e in found.items()]
        return inline_svg(figure, f"{measure.name} against bits per weight", told)


def told_of(estimate: Estimate, unit: str) -> str:
    """ "15.46 (15.1 to 15.8)"."""
    interval = measured_range(estimate.low, estimate.high, unit)
    return f"{measured(estimate.value, unit)} ({interval})"


def _bounds(estimate: Estimate) -> tuple[float, float]:
    """The value alone where there is no interval."""
    if estimate.low is None or estimate.high is None:
        return estimate.value, estimate.value
    return estimate.low, estimate.high


def _value_axis(axes: Axes, measure: Measure, values: Sequence[float]) -> None:
    axes.set_ylabel(f"{measure.name}, {measure.better} is better")
    if min(values) > 0 and max(values) / min(values) > LOG_FROM and measure.unit != "%":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if measure.unit == "%":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: measured(value, "")))
