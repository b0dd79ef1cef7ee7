"""The report's figures of a grid's losses and of predictions, as matplotlib Figures. Losses are nats per token."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_jax.laws.plots.figure_style import style
from moe_jax.report import findings
from moe_jax.report.findings import LABELS, MeasuredCell
from moe_jax.report.panels import (
    BLUE,
    MOST_ENTRIES,
    MOST_PANELS,
    add_legend,
    axis_value,
    colour_by,
    dense_first,
    joined,
    loss_axis,
    row_of_panels,
    shared_labels,
    spread_over,
    value_ticks,
)

if TYPE_CHECKING:
    from moe_jax.laws import Fit, Law
    from moe_jax.report.predictions import CheckedPrediction

_POINTS = 60  # of a law's curve


def loss_against(grid: Sequence[MeasuredCell], axis: str, law: "Law | None") -> Figure:
    """Loss against N, D or G, with the law's curve and interval; the other two axes are the panel and the colour.

    Raises ValueError where no cell has a value on the axis."""
    grid = [cell for cell in grid if getattr(cell, axis) is not None]
    if not grid:
        raise ValueError(f"no cell has a {axis}")
    colour_axis, panel_axis = {"N": ("D", "G"), "D": ("N", "G"), "G": ("N", "D")}[axis]
    with style():
        panels = spread_over(sorted({getattr(cell, panel_axis) for cell in grid}, key=dense_first), MOST_PANELS)
        figure, axes = row_of_panels(len(panels))
        colours = colour_by([getattr(cell, colour_axis) for cell in grid])
        for ax, panel in zip(axes, panels, strict=True):
            shown = [cell for cell in grid if getattr(cell, panel_axis) == panel]
            lines = list(findings.lines(shown, axis))
            for value, colour in colours.items():
                own = [cell for cell in shown if getattr(cell, colour_axis) == value]
                points = np.array([(getattr(cell, axis), loss) for cell in own for loss in cell.losses])
                ax.plot(*points.reshape(-1, 2).T, "o", color=colour, zorder=3)
                _draw_lines(ax, [line for line in lines if getattr(line[0], colour_axis) == value], axis, colour, law)
            ax.set_title(axis_value(panel_axis, panel))
            ax.set_xscale("log", base=2 if axis == "G" else 10)
            value_ticks(ax, [getattr(cell, axis) for cell in shown])
        loss_axis(axes)
        shared_labels(figure, LABELS[axis], "held-out loss (nats per token)")
        add_legend(figure, _entries(colour_axis, colours, law))
        return figure


def granularity_effect(grid: Sequence[MeasuredCell], law: "Law | None") -> Figure:
    """Loss at G minus the loss at the coarsest G of the same (N, D); below 0 finer is better. One panel per D, one
    colour per N.

    Raises ValueError where no (N, D) has two G."""
    every = list(findings.lines(grid, "G"))
    if not every:
        raise ValueError("no (N, D) has two G")
    with style():
        panels = spread_over(sorted({line[0].D for line in every}), MOST_PANELS)
        figure, axes = row_of_panels(len(panels))
        colours = colour_by([line[0].N for line in every])
        for ax, D in zip(axes, panels, strict=True):
            for N, colour in colours.items():
                lines = [line for line in every if line[0].D == D and line[0].N == N]
                if not lines:
                    continue
                effects = joined([[(c.G, c.loss - line[0].loss) for c in line] for line in lines])
                ax.plot(*effects, "o", color=colour, zorder=3)
                if law is None:
                    ax.plot(*effects, color=colour, linewidth=0.9)
                    continue
                for xs, value, _, _ in filter(None, (_law_along(law, line, "G") for line in lines)):
                    ax.plot(xs, value - value[0], color=colour)
            ax.axhline(0, color="0.4", linewidth=0.8)
            ax.set_title(axis_value("D", D))
            ax.set_xscale("log", base=2)
            value_ticks(ax, [cell.G for line in every for cell in line])
        shared_labels(figure, LABELS["G"], "loss − loss at the coarsest G (nats)")
        add_legend(figure, _entries("N", colours, law, band=False))
        return figure


def fit_against_data(fit: "Fit", labels: Mapping[str, str] | None = None) -> Figure:
    """laws.plots.fit in the report's style. labels: what the axes are called, by the law's symbol."""
    from moe_jax import laws

    with style():
        return laws.plots.fit(fit, labels)


def best_values(fit: "Fit") -> Figure:
    """laws.rate_figure.best_values in the report's style."""
    from moe_jax.laws import rate_figure

    with style():
        return rate_figure.best_values(fit)


def predictions(checked: "Sequence[CheckedPrediction]") -> Figure:
    """Measured minus predicted loss of each finished run against its predicted loss, with the predicted interval.

    Raises ValueError where no predicted run is finished."""
    known = [c for c in checked if c.error is not None]
    if not known:
        raise ValueError("no predicted run is finished")
    with style():
        figure, (ax,) = row_of_panels(1)
        ax.axhline(0, color="0.4", linewidth=0.8)
        for c in known:
            if math.isfinite(c.low):
                ax.plot(
                    [c.predicted] * 2, [c.low - c.predicted, c.high - c.predicted], color="0.75", linewidth=4, zorder=1
                )
        before = np.array([c.before for c in known])
        predicted, errors = np.array([c.predicted for c in known]), np.array([c.error for c in known])
        ax.plot(predicted[before], errors[before], "o", color=BLUE, alpha=0.8, zorder=3)
        ax.plot(predicted[~before], errors[~before], "o", color=BLUE, markerfacecolor="white", zorder=3)
        ax.set_xlabel("predicted loss (nats per token)")
        ax.set_ylabel("measured − predicted (nats)")
        entries = [("predicted beforehand", {"color": BLUE, "marker": "o", "linestyle": ""})]
        if not before.all():
            hollow = {"color": BLUE, "marker": "o", "linestyle": "", "markerfacecolor": "white"}
            entries.append(("predicted afterwards", hollow))
        if any(math.isfinite(c.low) for c in known):
            entries.append((f"{known[0].level:.0%} interval of a single run", {"color": "0.75", "linewidth": 4}))
        add_legend(figure, entries, loc="outside lower center", ncols=3)
        return figure


def _draw_lines(ax: Axes, lines: Sequence[Sequence[MeasuredCell]], axis: str, colour: Any, law: "Law | None") -> None:
    """Draws the law and its interval along lines of cells; without a law, thin lines from cell to cell."""
    if law is None and lines:
        ax.plot(*joined([[(getattr(c, axis), c.loss) for c in line] for line in lines]), color=colour, linewidth=0.8)
    for line in lines if law else ():
        if (drawn := _law_along(law, line, axis)) is not None:
            xs, value, low, high = drawn
            ax.plot(xs, value, color=colour)
            ax.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)


def _law_along(law: "Law", line: Sequence[MeasuredCell], axis: str) -> tuple[np.ndarray, ...] | None:
    """The law's (x, loss, low, high), (_POINTS,) each, from the line's first cell to its last; None where undefined.

    The law's other columns are interpolated between the cells, in logarithms where all values are positive."""
    known = np.array([getattr(cell, axis) for cell in line], np.float64)
    xs = np.geomspace(known[0], known[-1], _POINTS)
    table = {}
    for column in law.data.columns.values():
        values = np.array([cell.rows[0].get(column) for cell in line], np.float64)  # None becomes NaN
        logarithmic = bool((values > 0).all())
        between = np.interp(np.log(xs), np.log(known), np.log(values) if logarithmic else values)
        table[column] = np.exp(between) if logarithmic else between
    value, low, high = law.predict(table)
    return (xs, value, low, high) if np.isfinite(value).all() else None


def _entries(axis: str, colours: dict[float, Any], law: "Law | None", *, band: bool = True) -> list[tuple[str, dict]]:
    values = spread_over([*colours], MOST_ENTRIES)
    shown = [(axis_value(axis, v), {"color": colours[v], "marker": "o", "linestyle": ""}) for v in values]
    if law is not None:
        shown.append((f"law {law.name}", {"color": "0.4"}))
        if band and law.samples:
            shown.append((f"{law.level:.0%} interval of the law", {"color": "0.4", "alpha": 0.25, "linewidth": 7}))
    return shown
