"""The curves of a report as SVG for a page."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from einsort_vla.results.drawing import (
    INK,
    MARKERS,
    MUTED,
    N_COLOURS,
    SERIES,
    Arms,
    bits_axis,
    by_codec,
    draw_legend,
    draw_points,
    inline_svg,
    new_figure,
    style,
)
from einsort_vla.results.verdict import interval_of
from einsort_vla.results.wording import number, percent, percent_range, points, points_range

FLOOR_MARGINS, LEAST_FLOOR = 10, 0.1  # differences farther below may be arrows

Report = dict[str, Any]


def colours_of(report: Report) -> dict[str, int]:
    """The number of each codec's colour, by order of appearance; they repeat after the last."""
    codecs = dict.fromkeys(arm["codec"] for arm in report["arms"].values() if arm["codec"])
    return {codec: i % N_COLOURS for i, codec in enumerate(codecs)}


def success_curve(report: Report, salt: str = "") -> str | None:
    """Success against bits a weight, with Wilson intervals; None without a compressed arm.

    Only arms of the shortest delay: `delay_curve` has the others.
    """
    arms = {name: arm for name, arm in _undelayed(report).items() if arm["wilson95"]}
    coded, dense = _coded(arms), next((a for a in arms.values() if not a["codec"]), None)
    if not coded:
        return None
    with style(f"success{salt}"):
        figure, axes = new_figure()
        if dense:
            axes.axhspan(*dense["wilson95"], color=MUTED, alpha=0.16, lw=0)
            _level(axes, dense["success_rate"], report["margin"], 1)
        for codec, group, x in by_codec(coded):
            values = [(arm["success_rate"], arm["wilson95"]) for arm in group.values()]
            draw_points(axes, x, values, SERIES[colours_of(report)[codec]])
        _share_axis(axes)
        bits_axis(axes, coded)
        told = [f"{name} {_success(arm)}" for name, arm in arms.items()]
        return inline_svg(figure, "Success against bits per weight", told)


def difference_curve(report: Report, salt: str = "") -> str | None:
    """Paired difference to the dense arm against bits a weight; None without a pair."""
    paired = report["paired"]
    found = {name: interval_of(report, pair) for name, pair in paired.items()}
    intervals = {name: interval for name, interval in found.items() if interval}
    arms = {name: arm for name, arm in _coded(_undelayed(report)).items() if name in intervals}
    if not arms:
        return None
    values = {
        name: (100 * paired[name]["difference"], [100 * bound for bound in intervals[name]])
        for name in arms
    }
    with style(f"difference{salt}"):
        figure, axes = new_figure()
        _level(axes, 0, report["margin"], 100)
        bottom, top = _limits([interval for _, interval in values.values()], report["margin"])
        axes.set_ylim(bottom, top)
        axes.set_ylabel("difference, points")
        for i, (codec, group, x) in enumerate(by_codec(arms)):
            colour = SERIES[colours_of(report)[codec]]
            draw_points(axes, x, [values[name] for name in group], colour)
            _draw_below(axes, x, [values[name][0] for name in group], bottom, colour, i)
        bits_axis(axes, arms)
        told = [
            f"{name} {points(paired[name]['difference'])} points ({points_range(intervals[name])})"
            for name in arms
        ]
        return inline_svg(figure, "Paired difference to the dense policy", told)


def delay_curve(report: Report, salt: str = "") -> str | None:
    """Success against the delay of the policy's answers; None where all arms have the same."""
    arms = {name: arm for name, arm in report["arms"].items() if arm["wilson95"]}
    delays = sorted({arm["delay_ms"] for arm in arms.values()})
    if len(delays) < 2:
        return None
    lines: dict[tuple[str | None, float], list[dict[str, Any]]] = {}
    for arm in sorted(arms.values(), key=lambda arm: arm["delay_ms"]):
        lines.setdefault((arm["codec"], arm["rate_requested"]), []).append(arm)
    lines = {key: line for key, line in lines.items() if len(line) > 1}
    with style(f"delay{salt}"):
        figure, axes = new_figure()
        step = 0.012 * (delays[-1] - delays[0])
        for i, ((codec, rate), line) in enumerate(lines.items()):
            shift = step * (i - (len(lines) - 1) / 2)
            colour = SERIES[colours_of(report)[codec]] if codec else INK
            values = [(arm["success_rate"], arm["wilson95"]) for arm in line]
            x = [arm["delay_ms"] + shift for arm in line]
            label = f"{codec} {rate:g}" if codec else "dense"
            draw_points(axes, x, values, colour, MARKERS[i % len(MARKERS)], label)
        _share_axis(axes)
        axes.set_xlabel("delay of the policy's answers, ms")
        axes.set_xticks(delays)
        axes.spines.top.set_visible(False)
        draw_legend(figure, axes)
        told = [f"{name} {_success(arm)}" for name, arm in arms.items()]
        return inline_svg(figure, "Success against delay", told)


def _undelayed(report: Report) -> Arms:
    shortest = min((arm["delay_ms"] for arm in report["arms"].values()), default=0)
    return {name: arm for name, arm in report["arms"].items() if arm["delay_ms"] == shortest}


def _coded(arms: Arms) -> Arms:
    return {name: arm for name, arm in arms.items() if arm["codec"] and arm["compression"]}


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


def _level(axes: Axes, dense: float, margin: float, unit: float) -> None:
    """The line of the dense arm, and that of the margin below it."""
    axes.axhline(dense, color=INK, lw=1.2)
    axes.axhline(dense - unit * margin, color=MUTED, lw=1, ls=(0, (4, 3)))


def _share_axis(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("success")


def _success(arm: dict[str, Any]) -> str:
    return f"{percent(arm['success_rate'])} ({percent_range(arm['wilson95'])})"
