"""The panels that the report's figures are drawn in: their colours, ticks and legends."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from moe_jax.laws.plots.figure_style import STYLE
from moe_jax.text import short

MOST_PANELS, MOST_ENTRIES = 6, 9  # of a figure, of a legend: more cannot be told apart
BLUE = "#1f5fa8"  # where a figure needs one colour
_APART = 0.24  # of an axis' length between two of its labels


def row_of_panels(n: int, *, share: bool = True) -> tuple[Figure, list[Axes]]:
    """n panels side by side, in two rows from the fourth on. share: all have the same y axis."""
    columns = n if n <= 3 else math.ceil(n / 2)
    rows = math.ceil(n / columns)
    width = 1.9 + 2.75 * columns if columns > 2 else 8.2 if columns == 2 else 6.2
    figure = Figure(figsize=(width, 0.55 + 2.75 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=share, squeeze=False).ravel().tolist()
    for unused in axes[n:]:
        unused.remove()
    return figure, axes[:n]


def colour_by(values: Sequence[float]) -> dict[float, Any]:
    """A colour for each distinct value, from dark to light as the value grows."""
    ordered = sorted(set(values), key=dense_first)
    shades = matplotlib.colormaps["viridis"](np.linspace(0.02, 0.86, max(len(ordered), 2)))
    return dict(zip(ordered, shades.tolist(), strict=False))


def joined(lines: Sequence[Sequence[tuple[float, float]]]) -> tuple[list[float], list[float]]:
    """(xs, ys) of lines, each of (x, y), as one line with gaps between them, which is drawn faster."""
    points = [point for line in lines for point in (*line, (math.nan, math.nan))][:-1]
    return [x for x, _ in points], [y for _, y in points]


def spread_over(values: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the values, evenly spaced among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def add_legend(
    figure: Figure, entries: Sequence[tuple[str, dict]], loc: str = "outside right upper", ncols: int = 1
) -> None:
    """A legend beside the panels, or below them. entries: (text, how its line or marker is drawn)."""
    handles = [Line2D([], [], **look) for _, look in entries]
    figure.legend(handles, [text for text, _ in entries], loc=loc, ncols=ncols)


def shared_labels(figure: Figure, x: str, y: str) -> None:
    """Labels both axes once for all panels."""
    figure.supxlabel(x, fontsize=STYLE["axes.labelsize"])
    figure.supylabel(y, fontsize=STYLE["axes.labelsize"])


def axis_value(axis: str, value: float | None) -> str:
    """`N = 34.8k`; `dense` for no G."""
    return "dense" if value is None else f"{axis} = {short(value)}"


def dense_first(value: float | None) -> float:
    """A sort key that puts None, a dense model's G, before all numbers."""
    return -1.0 if value is None else value


def loss_axis(axes: Sequence[Axes]) -> None:
    """Makes the shared y axis logarithmic, with plain numbers: losses span less than a decade."""
    ends = np.array([ax.dataLim.intervaly for ax in axes])
    low, high = ends[:, 0].min(), ends[:, 1].max()
    for ax in axes:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.4g}"))
        ax.yaxis.set_minor_locator(NullLocator())
    if high < 1.02 * low:  # one value: matplotlib would show two decades around it
        axes[0].set_ylim(0.97 * low, 1.03 * high)


def value_ticks(ax: Axes, values: Iterable[float]) -> None:
    """Puts ticks at the data's own values, as many as are far enough apart on the logarithmic axis."""
    ordered = sorted(set(values))
    apart = _APART * math.log(ordered[-1] / ordered[0])
    ticks = ordered[:1]
    for value in ordered[1:]:
        if math.log(value / ticks[-1]) >= apart:
            ticks.append(value)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    ax.xaxis.set_minor_locator(NullLocator())
