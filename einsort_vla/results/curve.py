"""The curves of a report as SVG for a page: measures against size, and against delay."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter

from einsort_vla.results.arms import ArmFacts, undelayed
from einsort_vla.results.drawing import (
    INK,
    MARKERS,
    MUTED,
    N_COLOURS,
    SERIES,
    bits_axis,
    by_codec,
    draw_legend,
    draw_points,
    inline_svg,
    new_figure,
    style,
)
from einsort_vla.results.measures import Estimate, Measure
from einsort_vla.results.report import Report
from einsort_vla.results.wording import (
    change,
    change_range,
    measured,
    measured_range,
    number,
    opening,
)

FLOOR_MARGINS, LEAST_FLOOR = 10, 0.1  # differences farther below may be arrows
LOG_FROM = 4.0  # values that far apart, as a ratio, are drawn on a logarithmic axis
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
        has_margin = measure.margin is not None
        better = f"{opening(measure.better)} is better."
        level = "The line and the grey band are the dense arm and its 95 % interval."
        drawn = [(value_curve(measure, arms, colours, salt), measure.name,
                  f"{better} {level}")]  # fmt: skip
        if has_margin:
            told = "A bar wholly above the dashed line: worse by less than the margin, if at all."
            drawn.append((change_curve(measure, arms, colours, salt), "against dense", told))
        told = "The robot moves on while the policy computes. Bars are 95 % intervals."
        drawn.append((delay_curve(measure, report.arms, colours, salt), "delay", told))
        figures += [
            Figure(Markup(svg), opening(title), caption, has_margin)
            for svg, title, caption in drawn
            if svg
        ]
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
    with style(f"{measure.name}{salt}"):
        figure, axes = new_figure()
        if dense:
            axes.axhspan(*_bounds(dense), color=MUTED, alpha=0.16, lw=0)
            _level(axes, dense.value, measure.margin)
        for codec, group, x in by_codec(coded):
            values = [(found[arm.name].value, _bounds(found[arm.name])) for arm in group]
            draw_points(axes, x, values, SERIES[colours[codec]])
        _value_axis(axes, measure, [estimate.value for estimate in found.values()])
        bits_axis(axes, coded)
        return inline_svg(figure, f"{measure.name} against bits per weight", _told(measure, found))


def change_curve(
    measure: Measure, arms: Sequence[ArmFacts], colours: Colours, salt: str = ""
) -> str | None:
    """Paired difference to the dense arm in points against bits a weight; None without a pair."""
    paired = {name: pair for name, pair in measure.paired.items() if pair.interval}
    coded = [arm for arm in arms if arm.name in paired]
    if not coded or measure.margin is None:
        return None
    bounds = {arm.name: [100 * bound for bound in paired[arm.name].interval or ()] for arm in coded}
    with style(f"{measure.name} change{salt}"):
        figure, axes = new_figure()
        _level(axes, 0, 100 * measure.margin)
        bottom, top = _limits(list(bounds.values()), measure.margin)
        axes.set_ylim(bottom, top)
        axes.set_ylabel("difference, points")
        for k, (codec, group, x) in enumerate(by_codec(coded)):
            values = [100 * paired[arm.name].value for arm in group]
            with_bounds = [
                (value, bounds[arm.name]) for arm, value in zip(group, values, strict=True)
            ]
            draw_points(axes, x, with_bounds, SERIES[colours[codec]])
            _draw_below(axes, x, values, bottom, SERIES[colours[codec]], k)
        bits_axis(axes, coded)
        told = [
            f"{arm.name} {change(measure, paired[arm.name])} "
            f"({change_range(measure, paired[arm.name])})"
            for arm in coded
        ]
        return inline_svg(figure, "Paired difference to the dense policy", told)


def delay_curve(
    measure: Measure, arms: Sequence[ArmFacts], colours: Colours, salt: str = ""
) -> str | None:
    """Value against the delay of the policy's answers; None where all arms have the same."""
    found = _found(measure, arms)
    delayed = sorted((a for a in arms if a.name in found), key=lambda arm: arm.delay_ms)
    delays = sorted({arm.delay_ms for arm in delayed})
    if len(delays) < 2:
        return None
    lines: dict[str, list[ArmFacts]] = {}
    for arm in delayed:
        lines.setdefault(str(arm.code), []).append(arm)
    lines = {label: line for label, line in lines.items() if len(line) > 1}
    with style(f"{measure.name} delay{salt}"):
        figure, axes = new_figure()
        step = 0.012 * (delays[-1] - delays[0])
        for k, (label, line) in enumerate(lines.items()):
            shift, codec = step * (k - (len(lines) - 1) / 2), line[0].codec
            colour = SERIES[colours[codec]] if codec else INK
            values = [(found[arm.name].value, _bounds(found[arm.name])) for arm in line]
            x = [arm.delay_ms + shift for arm in line]
            draw_points(axes, x, values, colour, MARKERS[k % len(MARKERS)], label)
        _value_axis(axes, measure, [estimate.value for estimate in found.values()])
        axes.set_xlabel("delay of the policy's answers, ms")
        axes.set_xticks(delays)
        axes.spines.top.set_visible(False)
        draw_legend(figure, axes)
        return inline_svg(figure, f"{measure.name} against delay", _told(measure, found))


def _found(measure: Measure, arms: Sequence[ArmFacts]) -> dict[str, Estimate]:
    """Of these arms, what was measured on something."""
    names = {arm.name for arm in arms}
    return {name: e for name, e in measure.arms.items() if e.n and name in names}


def _told(measure: Measure, found: Mapping[str, Estimate]) -> list[str]:
    """ "dense 15.46 (15.1 to 15.8)"."""
    return [
        f"{name} {measured(e.value, measure.unit)} ({measured_range(e.low, e.high, measure.unit)})"
        for name, e in found.items()
    ]


def _bounds(estimate: Estimate) -> tuple[float, float]:
    """The value alone where there is no interval."""
    return estimate.interval or (estimate.value, estimate.value)


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
    axes: Axes, x: Sequence[float], values: Sequence[float], bottom: float, colour: str, line: int
) -> None:
    """Arrows with numbers, on a line of text of their own, for values below the axis."""
    for place, value in zip(x, values, strict=True):
        if value < bottom:
            axes.plot(place, bottom, "v", color=colour, clip_on=False, zorder=5)
            axes.annotate(number(value, 0), (place, bottom), (0, 6 + 10 * line), ha="right",
                          textcoords="offset points", color=colour)  # fmt: skip


def _level(axes: Axes, dense: float, margin: float | None) -> None:
    """The line of the dense arm, and that of the margin below it."""
    axes.axhline(dense, color=INK, lw=1.2)
    if margin is not None:
        axes.axhline(dense - margin, color=MUTED, lw=1, ls=(0, (4, 3)))


def _value_axis(axes: Axes, measure: Measure, values: Sequence[float]) -> None:
    axes.set_ylabel(f"{measure.name}, {measure.better} is better")
    if measure.margin is not None:  # a success rate: all of them are drawn alike
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        return
    if min(values) > 0 and max(values) / min(values) > LOG_FROM and measure.unit != "%":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if measure.unit == "%":
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: measured(value, "")))
