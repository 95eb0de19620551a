"""The curves of a report as SVG for a page: measures against size, and against delay.

Their text stays text, and their colours are the page's own.
"""

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

from markupsafe import Markup
from matplotlib import figure as drawing
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from einsort_vla.results import wording
from einsort_vla.results.arms import DENSE_BITS, ArmFacts, undelayed
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.report import Report

FLOOR_MARGINS, LEAST_FLOOR = 10, 0.1  # differences farther below may be arrows
LOG_FROM = 4.0  # values that far apart, as a ratio, are drawn on a logarithmic axis
N_COLOURS = 6  # --series-0 to --series-5 of the page
SIZE_INCHES = (4.2, 3.4)  # small, so that text is still read where a phone shrinks it
LEGEND_LETTERS = 58  # that fit on a line of a legend
MARKERS = "os^vDP"
_BIT_TICKS = (16, 8, 4, 2, 1)
_RATE_TICKS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
# Colours that nothing else has; `inline_svg` puts variables of the page in their place.
INK, MUTED, _GRID = "#0102f0", "#0102f1", "#0102f2"
SERIES = [f"#0102{i:02x}" for i in range(N_COLOURS)]
_VARIABLES = {INK: "ink", MUTED: "muted", _GRID: "grid"} | {
    colour: f"series-{i}" for i, colour in enumerate(SERIES)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
}
LEVEL = "The line and the grey band are the dense arm and its 95 % interval."
CAPTIONS = {
    "against dense": "A bar wholly above the dashed line: worse by less than the margin, "
    "if at all.",
    "delay": "The robot moves on while the policy computes. Bars are 95 % intervals.",
}
Colours = Mapping[str, int]


@dataclass(frozen=True)
class Figure:
    """A curve and what stands below it."""

    svg: Markup
    title: str
    caption: str
    has_margin: bool = False


def colours_of(arms: Iterable[ArmFacts]) -> dict[str, int]:
    """The number of each codec's colour, by order of appearance; they repeat after the last."""
    codecs = dict.fromkeys(arm.codec for arm in arms if arm.codec)
    return {codec: k % N_COLOURS for k, codec in enumerate(codecs)}


def figures_of(report: Report, colours: Colours, salt: str = "") -> list[Figure]:
    """All curves that a run has.

    Args:
        report: of the run.
        colours: number of each codec's colour.
        salt: what tells these figures from others of the same page.
    """
    figures: list[Figure] = []
    arms = undelayed(report.arms)
    for measure in report.measures:
        drawn = {
            measure.name: value_curve(measure, arms, colours, salt),
            "against dense": change_curve(measure, arms, colours, salt),
            "delay": delay_curve(measure, report.arms, colours, salt),
        }
        better = f"{wording.opening(measure.better)} is better."
        figures += [
            Figure(Markup(svg), wording.opening(title), CAPTIONS.get(title, f"{better} {LEVEL}"),
                   has_margin=measure.margin is not None)
            for title, svg in drawn.items()
            if svg
        ]  # fmt: skip
    return figures


def value_curve(
    measure: Measure, arms: Sequence[ArmFacts], colours: Colours, salt: str = ""
) -> str | None:
    """Value against bits a weight, with its intervals; None without a compressed arm."""
    found = _found(measure, arms)
    coded = [arm for arm in arms if arm.codec and arm.name in found]
    if not coded:
        return None
    dense = next((found[arm.name] for arm in arms if not arm.codec and arm.name in found), None)
    with _new_figure(f"{measure.name}{salt}") as (figure, axes):
        if dense:
            axes.axhspan(*_bounds(dense), color=MUTED, alpha=0.16, lw=0)
            _level(axes, dense.value, measure.margin)
        for codec, group, x in _by_codec(coded):
            _draw_points(axes, x, [found[arm.name] for arm in group], SERIES[colours[codec]])
        _value_axis(axes, measure, found)
        _bits_axis(axes, coded)
        return _inline_svg(figure, f"{measure.name} against bits per weight", _told(measure, found))


def change_curve(
    measure: Measure, arms: Sequence[ArmFacts], colours: Colours, salt: str = ""
) -> str | None:
    """Paired difference to the dense arm in points against bits a weight; None without a pair."""
    coded = [
        arm for arm in arms if arm.name in measure.paired and measure.paired[arm.name].interval
    ]
    if not coded or measure.margin is None:
        return None
    points = {arm.name: _in_points(measure.paired[arm.name]) for arm in coded}
    with _new_figure(f"{measure.name} change{salt}") as (figure, axes):
        _level(axes, 0, 100 * measure.margin)
        bottom, top = _limits([_bounds(each) for each in points.values()], measure.margin)
        axes.set_ylim(bottom, top)
        axes.set_ylabel("difference, points")
        for k, (codec, group, x) in enumerate(_by_codec(coded)):
            changes, colour = [points[arm.name] for arm in group], SERIES[colours[codec]]
            _draw_points(axes, x, changes, colour)
            _draw_below(axes, x, changes, bottom, colour, k)
        _bits_axis(axes, coded)
        told = {name: wording.change(measure, measure.paired[name]) for name in points}
        return _inline_svg(figure, "Paired difference to the dense policy", told)


def delay_curve(
    measure: Measure, arms: Sequence[ArmFacts], colours: Colours, salt: str = ""
) -> str | None:
    """Value against the delay of the policy's answers; None where all arms have the same."""
    found = _found(measure, arms)
    lines: dict[str, list[ArmFacts]] = {}
    for arm in sorted((a for a in arms if a.name in found), key=lambda arm: arm.delay_ms):
        lines.setdefault(str(arm.code), []).append(arm)
    delays = sorted({arm.delay_ms for line in lines.values() for arm in line})
    if len(delays) < 2:
        return None
    lines = {label: line for label, line in lines.items() if len(line) > 1}
    with _new_figure(f"{measure.name} delay{salt}") as (figure, axes):
        step = 0.012 * (delays[-1] - delays[0])
        for k, (label, line) in enumerate(lines.items()):
            shift, codec = step * (k - (len(lines) - 1) / 2), line[0].codec
            colour = SERIES[colours[codec]] if codec else INK
            x = [arm.delay_ms + shift for arm in line]
            values = [found[arm.name] for arm in line]
            _draw_points(axes, x, values, colour, MARKERS[k % len(MARKERS)], label)
        _value_axis(axes, measure, found)
        axes.set_xlabel("delay of the policy's answers, ms")
        axes.set_xticks(delays)
        axes.spines.top.set_visible(False)
        _draw_legend(figure, axes)
        return _inline_svg(figure, f"{measure.name} against delay", _told(measure, found))


def _found(measure: Measure, arms: Sequence[ArmFacts]) -> dict[str, Estimate]:
    """Of these arms, what was measured on something."""
    found = {arm.name: measure.arms.get(arm.name) for arm in arms}
    return {name: each for name, each in found.items() if each and each.n}


def _told(measure: Measure, found: Mapping[str, Estimate]) -> dict[str, tuple[str, str]]:
    return {name: wording.estimated(each, measure.unit) for name, each in found.items()}


def _bounds(estimate: Estimate) -> tuple[float, float]:
    """The value alone where there is no interval."""
    return estimate.interval or (estimate.value, estimate.value)


def _in_points(pair: Estimate) -> Estimate:
    low, high = _bounds(pair)
    return Estimate(100 * pair.value, 100 * low, 100 * high, pair.n)


def _limits(intervals: Sequence[Sequence[float]], margin: float) -> tuple[float, float]:
    """Of an axis of differences, in points.

    It ends above intervals that lie wholly below `FLOOR_MARGINS`: an arm that fails altogether
    would else press the margin and what is near it into one line.
    """
    floor = -100 * max(FLOOR_MARGINS * margin, LEAST_FLOOR)
    near = [interval for interval in intervals if interval[1] >= floor] or [(floor, 0)]
    least = 200 * margin
    low, high = min(low for low, _ in near), max(high for _, high in near)
    return 1.15 * min(low, -least), 1.15 * max(high, least / 2, 1)


def _draw_below(
    axes: Axes,
    x: Sequence[float],
    changes: Sequence[Estimate],
    bottom: float,
    colour: str,
    line: int,
) -> None:
    """Arrows with numbers, on a line of text of their own, for values below the axis."""
    for place, value in zip(x, (change.value for change in changes), strict=True):
        if value < bottom:
            axes.plot(place, bottom, "v", color=colour, clip_on=False, zorder=5)
            axes.annotate(wording.number(value, 0), (place, bottom), (0, 6 + 10 * line), ha="right",
                          textcoords="offset points", color=colour)  # fmt: skip


def _level(axes: Axes, dense: float, margin: float | None) -> None:
    """The line of the dense arm, and that of the margin below it."""
    axes.axhline(dense, color=INK, lw=1.2)
    if margin is not None:
        axes.axhline(dense - margin, color=MUTED, lw=1, ls=(0, (4, 3)))


def _value_axis(axes: Axes, measure: Measure, found: Mapping[str, Estimate]) -> None:
    axes.set_ylabel(f"{measure.name}, {measure.better} is better")
    if measure.margin is not None:  # a success rate: all of them are drawn alike
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return
    values = [estimate.value for estimate in found.values()]
    if min(values) > 0 and max(values) / min(values) > LOG_FROM and measure.unit != "%":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if measure.unit == "%":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: wording.measured(value, "")))


@contextmanager
def _new_figure(salt: str) -> Iterator[tuple[drawing.Figure, Axes]]:
    """A figure with one plot; those of one page need different salts, or they share ids."""
    with rc_context({**_STYLE, "svg.hashsalt": salt}):
        figure = drawing.Figure(figsize=SIZE_INCHES, layout="constrained")
        yield figure, figure.add_subplot()


def _draw_points(
    axes: Axes,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    colour: str,
    marker: str = "o",
    label: str | None = None,
) -> None:
    below = [max(each.value - _bounds(each)[0], 0) for each in estimates]
    above = [max(_bounds(each)[1] - each.value, 0) for each in estimates]
    axes.errorbar(x, [each.value for each in estimates], [below, above], fmt=f"{marker}-",
                  color=colour, elinewidth=1.1, capsize=2.5, label=label)  # fmt: skip


def _bits_axis(axes: Axes, arms: Sequence[ArmFacts]) -> None:
    low = 0.8 * min(arm.bits_per_weight for arm in arms)
    high = 1.15 * DENSE_BITS
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.set_xlabel("bits per weight")
    above = axes.secondary_xaxis("top")
    above.set_xlabel("rate: share of the bytes removed")
    bits = {float(n): str(n) for n in _BIT_TICKS}
    rates = {DENSE_BITS * (1 - rate): f"{100 * rate:g} %" for rate in _RATE_TICKS}
    for axis, ticks in ((axes.xaxis, bits), (above.xaxis, rates)):
        shown = [tick for tick in ticks if low <= tick <= high]
        axis.set_ticks(shown, [ticks[tick] for tick in shown])
        axis.set_minor_locator(NullLocator())
        axis.set_minor_formatter(NullFormatter())


def _draw_legend(figure: drawing.Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    n_columns = max(LEGEND_LETTERS // (max(map(len, labels)) + 7), 1)
    figure.legend(handles, labels, loc="outside lower center", ncols=n_columns, handlelength=1.6)


def _by_codec(arms: Sequence[ArmFacts]) -> Iterable[tuple[str, list[ArmFacts], list[float]]]:
    """Codecs, their arms by bits a weight, and the places of these on the axis.

    Codecs are shifted against each other by 3 %, or their bars would hide one another.
    """
    codecs = list(dict.fromkeys(arm.codec for arm in arms if arm.codec))
    for k, codec in enumerate(codecs):
        mine = [arm for arm in arms if arm.codec == codec]
        group = sorted(mine, key=lambda arm: arm.bits_per_weight)
        shift = 1.03 ** (k - (len(codecs) - 1) / 2)
        yield codec, group, [shift * arm.bits_per_weight for arm in group]


def _inline_svg(figure: drawing.Figure, title: str, told: Mapping[str, tuple[str, str]]) -> str:
    """The figure as an <svg> element, with values and intervals for those who cannot see it."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    text = file.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 :]
    view = re.search(r'viewBox="[^"]+"', text)
    assert view
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # ids that another figure has, too
    texts = (f"{arm} {value} ({interval})" for arm, (value, interval) in told.items())
    label = escape(f"{title}: {'; '.join(texts)}.")
    return f'<svg role="img" {view[0]} aria-label="{label}">{body}'
