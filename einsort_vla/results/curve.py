"""The curves of a report as SVG for a page: text stays text, colours are the page's variables."""

import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, PercentFormatter

from einsort_vla.results.verdict import interval_of
from einsort_vla.results.wording import number, percent, percent_range, points, points_range

DENSE_BITS = 16.0  # a weight, in bfloat16
N_COLOURS = 6  # --series-0 to --series-5 of the page
SIZE_INCHES = (4.2, 3.4)  # small, so that text is still read where a phone shrinks it
LEGEND_LETTERS = 58  # that fit on a line of a legend
FLOOR_MARGINS, LEAST_FLOOR = 10, 0.1  # differences farther below may be arrows
_MARKERS = "os^vDP"
_BIT_TICKS = (16, 8, 4, 2, 1)
_RATE_TICKS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
# Colours that nothing else has; `_inline` puts variables of the page in their place.
_INK, _MUTED, _GRID = "#0102f0", "#0102f1", "#0102f2"
_SERIES = [f"#0102{i:02x}" for i in range(N_COLOURS)]
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "grid"} | {
    colour: f"series-{i}" for i, colour in enumerate(_SERIES)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "text.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
}

Report = dict[str, Any]
Arms = dict[str, dict[str, Any]]


def colours_of(report: Report) -> dict[str, int]:
    """The number of each codec's colour, by order of appearance; they repeat after the last."""
    codecs = dict.fromkeys(arm["codec"] for arm in report["arms"].values() if arm["codec"])
    return {codec: i % N_COLOURS for i, codec in enumerate(codecs)}


def success_curve(report: Report) -> str | None:
    """Success against bits a weight, with Wilson intervals; None without a compressed arm.

    Only arms of the shortest delay: `delay_curve` has the others.
    """
    arms = {name: arm for name, arm in _undelayed(report).items() if arm["wilson95"]}
    coded, dense = _coded(arms), next((a for a in arms.values() if not a["codec"]), None)
    if not coded:
        return None
    with rc_context({**_STYLE, "svg.hashsalt": "success"}):
        figure, axes = _figure()
        if dense:
            axes.axhspan(*dense["wilson95"], color=_MUTED, alpha=0.16, lw=0)
            _level(axes, dense["success_rate"], report["margin"], 1)
        for codec, group, x in _groups(coded):
            values = [(arm["success_rate"], arm["wilson95"]) for arm in group.values()]
            _draw(axes, x, values, _SERIES[colours_of(report)[codec]])
        _share_axis(axes)
        _bits_axis(axes, coded)
        told = [f"{name} {_success(arm)}" for name, arm in arms.items()]
        return _inline(figure, "Success against bits per weight", told)


def difference_curve(report: Report) -> str | None:
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
    with rc_context({**_STYLE, "svg.hashsalt": "difference"}):
        figure, axes = _figure()
        _level(axes, 0, report["margin"], 100)
        bottom, top = _limits([interval for _, interval in values.values()], report["margin"])
        axes.set_ylim(bottom, top)
        axes.set_ylabel("difference, points")
        for i, (codec, group, x) in enumerate(_groups(arms)):
            colour = _SERIES[colours_of(report)[codec]]
            _draw(axes, x, [values[name] for name in group], colour)
            _draw_below(axes, x, [values[name][0] for name in group], bottom, colour, i)
        _bits_axis(axes, arms)
        told = [
            f"{name} {points(paired[name]['difference'])} points ({points_range(intervals[name])})"
            for name in arms
        ]
        return _inline(figure, "Paired difference to the dense policy", told)


def delay_curve(report: Report) -> str | None:
    """Success against the delay of the policy's answers; None where all arms have the same."""
    arms = {name: arm for name, arm in report["arms"].items() if arm["wilson95"]}
    delays = sorted({arm["delay_ms"] for arm in arms.values()})
    if len(delays) < 2:
        return None
    lines: dict[tuple[str | None, float], list[dict[str, Any]]] = {}
    for arm in sorted(arms.values(), key=lambda arm: arm["delay_ms"]):
        lines.setdefault((arm["codec"], arm["rate_requested"]), []).append(arm)
    lines = {key: line for key, line in lines.items() if len(line) > 1}
    with rc_context({**_STYLE, "svg.hashsalt": "delay"}):
        figure, axes = _figure()
        step = 0.012 * (delays[-1] - delays[0])
        for i, ((codec, rate), line) in enumerate(lines.items()):
            shift = step * (i - (len(lines) - 1) / 2)
            colour = _SERIES[colours_of(report)[codec]] if codec else _INK
            values = [(arm["success_rate"], arm["wilson95"]) for arm in line]
            x = [arm["delay_ms"] + shift for arm in line]
            label = f"{codec} {rate:g}" if codec else "dense"
            _draw(axes, x, values, colour, _MARKERS[i % len(_MARKERS)], label)
        _share_axis(axes)
        axes.set_xlabel("delay of the policy's answers, ms")
        axes.set_xticks(delays)
        axes.spines.top.set_visible(False)
        _legend(figure, axes)
        told = [f"{name} {_success(arm)}" for name, arm in arms.items()]
        return _inline(figure, "Success against delay", told)


def _undelayed(report: Report) -> Arms:
    shortest = min((arm["delay_ms"] for arm in report["arms"].values()), default=0)
    return {name: arm for name, arm in report["arms"].items() if arm["delay_ms"] == shortest}


def _coded(arms: Arms) -> Arms:
    return {name: arm for name, arm in arms.items() if arm["codec"] and arm["compression"]}


def _bits(arm: dict[str, Any]) -> float:
    return arm["compression"]["bits_per_weight"]


def _groups(arms: Arms) -> Iterable[tuple[str, Arms, list[float]]]:
    """Codecs, their arms and the places of these on the axis.

    Codecs are shifted against each other by 3 %, or their bars would hide one another.
    """
    codecs = list(dict.fromkeys(arm["codec"] for arm in arms.values()))
    for i, codec in enumerate(codecs):
        mine = [(name, arm) for name, arm in arms.items() if arm["codec"] == codec]
        group = dict(sorted(mine, key=lambda item: _bits(item[1])))
        shift = 1.03 ** (i - (len(codecs) - 1) / 2)
        yield codec, group, [shift * _bits(arm) for arm in group.values()]


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    return figure, figure.add_subplot()


def _draw(
    axes: Axes,
    x: Sequence[float],
    values: Sequence[tuple[float, Sequence[float]]],
    colour: str,
    marker: str = "o",
    label: str | None = None,
) -> None:
    """Points, each a value with its interval, and the line through them."""
    middle = [value for value, _ in values]
    below = [max(value - low, 0) for value, (low, _) in values]
    above = [max(high - value, 0) for value, (_, high) in values]
    axes.errorbar(x, middle, [below, above], fmt=f"{marker}-", color=colour, elinewidth=1.1,
                  capsize=2.5, label=label)  # fmt: skip


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
    axes.axhline(dense, color=_INK, lw=1.2)
    axes.axhline(dense - unit * margin, color=_MUTED, lw=1, ls=(0, (4, 3)))


def _share_axis(axes: Axes) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_ylabel("success")


def _bits_axis(axes: Axes, arms: Arms) -> None:
    """Bits a weight below, logarithmic, and the rate above."""
    low = 0.8 * min(_bits(arm) for arm in arms.values())
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


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    n_columns = max(LEGEND_LETTERS // (max(map(len, labels)) + 7), 1)
    figure.legend(handles, labels, loc="outside lower center", ncols=n_columns, handlelength=1.6)


def _success(arm: dict[str, Any]) -> str:
    return f"{percent(arm['success_rate'])} ({percent_range(arm['wilson95'])})"


def _inline(figure: Figure, title: str, told: Iterable[str]) -> str:
    """The figure as an <svg> element, `told` as its text for those who cannot see it."""
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
    label = escape(f"{title}: {'; '.join(told)}.")
    return f'<svg role="img" {view[0]} aria-label="{label}">{body}'
