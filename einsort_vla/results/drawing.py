"""What curves of pages are drawn with: SVG whose text stays text, in the page's own colours."""

import io
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from einsort_vla.results.arms import DENSE_BITS, ArmFacts

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


def style(salt: str) -> AbstractContextManager[None]:
    """Draw with these settings; figures of one page need different salts, or they share ids."""
    return rc_context({**_STYLE, "svg.hashsalt": salt})


def new_figure() -> tuple[Figure, Axes]:
    """A figure with one plot."""
    figure = Figure(figsize=SIZE_INCHES, layout="constrained")
    return figure, figure.add_subplot()


def draw_points(
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


def bits_axis(axes: Axes, arms: Sequence[ArmFacts]) -> None:
    """Bits a weight below, logarithmic, and the rate above."""
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


def draw_legend(figure: Figure, axes: Axes) -> None:
    """Below the plot, with as many labels in a line as fit."""
    handles, labels = axes.get_legend_handles_labels()
    n_columns = max(LEGEND_LETTERS // (max(map(len, labels)) + 7), 1)
    figure.legend(handles, labels, loc="outside lower center", ncols=n_columns, handlelength=1.6)


def by_codec(
    arms: Sequence[ArmFacts],
) -> Iterable[tuple[str, list[ArmFacts], list[float]]]:
    """Codecs, their arms by bits a weight, and the places of these on the axis.

    Codecs are shifted against each other by 3 %, or their bars would hide one another.
    """
    codecs = list(dict.fromkeys(arm.codec for arm in arms if arm.codec))
    for k, codec in enumerate(codecs):
        mine = [arm for arm in arms if arm.codec == codec]
        group = sorted(mine, key=lambda arm: arm.bits_per_weight)
        shift = 1.03 ** (k - (len(codecs) - 1) / 2)
        yield codec, group, [shift * arm.bits_per_weight for arm in group]


def inline_svg(figure: Figure, title: str, told: Iterable[str]) -> str:
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
