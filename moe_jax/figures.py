"""The report's pictures: each a function of data that gives a matplotlib Figure. Losses are nats per token.

Figures are made without pyplot: no window system, no state between two of them.
"""

import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from moe_jax import findings
from moe_jax.findings import Cell
from moe_jax.tables import short

if TYPE_CHECKING:
    from moe_jax.laws import Law
    from moe_jax.predictions import Checked

LOSS = "held-out loss (nats per token)"
LABELS = {
    "N": "N: non-embedding parameters, all experts",
    "D": "D: training tokens",
    "G": "G: granularity, d_ff / d_expert",
}
EARLIEST = 0.02  # of the longest run's tokens: where loss curves begin
_PANELS, _LEGEND = 6, 9  # at most: more cannot be told apart
_POINTS = 60  # of a law's curve
_APART = 0.24  # of an axis' length between two of its labels

_STYLE = {
    "font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 9, "legend.fontsize": 8.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6, "lines.linewidth": 1.4,
    "lines.markersize": 5, "legend.frameon": False, "svg.hashsalt": "moe_jax", "axes.axisbelow": True,
}  # fmt: skip


def style() -> Any:
    """The context in which a figure is made, so that all look alike."""
    return matplotlib.rc_context(_STYLE)


@dataclasses.dataclass(frozen=True)
class Curve:
    """The logged losses of one run, one at least. tokens, losses: (steps,)."""

    N: int
    D: int
    G: float | None
    tokens: np.ndarray
    losses: np.ndarray
    state: str  # of runstate.STATES
    eval_loss: float | None  # of a finished run


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Measured losses beside a law's. All arrays (runs,)."""

    measured: np.ndarray
    predicted: np.ndarray
    held_out: np.ndarray  # bool
    columns: dict[str, np.ndarray]  # the law's axes by symbol
    labels: dict[str, str]  # what they are called under the axis, by symbol
    rmse: float  # of the fit, nats

    @property
    def residuals(self) -> np.ndarray:
        return self.measured - self.predicted


def to_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`; the same bytes for the same data."""
    out = io.BytesIO()
    with style():
        if figure.get_layout_engine() is not None:  # once: the layout costs as much as the drawing
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(out, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    return out.getvalue()


def loss_curves(curves: Sequence[Curve]) -> Figure:
    """Training loss against tokens, a panel a G, a colour an N; a dot is the held-out loss at the end.

    Drawn from EARLIEST of the longest run on: before that all curves fall alike, and would take most of the picture."""
    begin, end = (f * max(curve.tokens[-1] for curve in curves) for f in (EARLIEST, 1.15))
    with style():
        panels = _spread(sorted({curve.G for curve in curves}, key=_order), _PANELS)
        figure, axes = row_of_panels(len(panels))
        colours = colour_by([curve.N for curve in curves])
        for ax, G in zip(axes, panels, strict=True):
            for curve in curves:
                if curve.G == G:
                    _curve(ax, curve, colours[curve.N])
            ax.set_title(_said("G", G))
            ax.set_xscale("log")
            ax.set_xlim(begin, end)
        loss_axis(axes)
        seen = [
            y for curve in curves for y in (*_smooth(curve)[curve.tokens >= begin], curve.eval_loss) if y is not None
        ]
        axes[0].set_ylim(0.97 * min(seen), 1.03 * max(seen))
        shared_labels(figure, "tokens seen", "loss (nats per token)")
        entries = [(_said("N", N), {"color": colours[N]}) for N in _spread([*colours], _LEGEND)]
        entries.append(("held-out loss at the end", {"color": "0.3", "marker": "o", "linestyle": ""}))
        if any(curve.state == "diverged" for curve in curves):
            entries.append(("diverged", {"color": "0.3", "marker": "x", "linestyle": ""}))
        add_legend(figure, entries)
        return figure


def _curve(ax: Axes, curve: Curve, colour: Any) -> None:
    ax.plot(curve.tokens, curve.losses, color=colour, alpha=0.13, linewidth=0.7)
    ax.plot(curve.tokens, _smooth(curve), color=colour, linewidth=1.1)
    if curve.eval_loss is not None:
        ax.plot(curve.tokens[-1], curve.eval_loss, "o", color=colour, markersize=4)
    elif curve.state == "diverged":
        ax.plot(curve.tokens[-1], curve.losses[-1], "x", color=colour, markersize=6)


def _smooth(curve: Curve) -> np.ndarray:
    """The mean over ±15% of the tokens: an even smoothing on a logarithmic axis."""
    total = np.concatenate([[0.0], np.cumsum(curve.losses)])
    low = np.searchsorted(curve.tokens, curve.tokens / 1.15)
    high = np.searchsorted(curve.tokens, curve.tokens * 1.15, side="right")
    return (total[high] - total[low]) / (high - low)


def loss_against(grid: Sequence[Cell], axis: str, law: "Law | None") -> Figure:
    """Loss against N, D or G: a panel and a colour for the other two, the law drawn through with its interval.

    Raises ValueError where no cell has a value on the axis."""
    grid = [cell for cell in grid if getattr(cell, axis) is not None]
    if not grid:
        raise ValueError(f"no cell has a {axis}")
    colour_axis, panel_axis = {"N": ("D", "G"), "D": ("N", "G"), "G": ("N", "D")}[axis]
    with style():
        panels = _spread(sorted({getattr(cell, panel_axis) for cell in grid}, key=_order), _PANELS)
        figure, axes = row_of_panels(len(panels))
        colours = colour_by([getattr(cell, colour_axis) for cell in grid])
        for ax, panel in zip(axes, panels, strict=True):
            shown = [cell for cell in grid if getattr(cell, panel_axis) == panel]
            for cell in shown:
                xs = [getattr(cell, axis)] * len(cell.losses)
                ax.plot(xs, cell.losses, "o", color=colours[getattr(cell, colour_axis)], zorder=3)
            for line in findings.lines(shown, axis):
                _through(ax, line, axis, colours[getattr(line[0], colour_axis)], law)
            ax.set_title(_said(panel_axis, panel))
            ax.set_xscale("log", base=2 if axis == "G" else 10)
            value_ticks(ax, [getattr(cell, axis) for cell in shown])
        loss_axis(axes)
        shared_labels(figure, LABELS[axis], LOSS)
        add_legend(figure, _entries(colour_axis, colours, law))
        return figure


def granularity_effect(grid: Sequence[Cell], law: "Law | None") -> Figure:
    """Loss at G less that at the coarsest G of the same (N, D), a panel a D, a colour an N. Below 0: finer is better.

    Raises ValueError where no (N, D) has two G."""
    every = list(findings.lines(grid, "G"))
    if not every:
        raise ValueError("no (N, D) has two G")
    with style():
        panels = _spread(sorted({line[0].D for line in every}), _PANELS)
        figure, axes = row_of_panels(len(panels))
        colours = colour_by([line[0].N for line in every])
        for ax, D in zip(axes, panels, strict=True):
            for line in (line for line in every if line[0].D == D):
                colour = colours[line[0].N]
                ax.plot([c.G for c in line], [c.loss - line[0].loss for c in line], "o", color=colour, zorder=3)
                if law is None:
                    ax.plot([c.G for c in line], [c.loss - line[0].loss for c in line], color=colour, linewidth=0.9)
                elif (drawn := _drawn(law, line, "G")) is not None:
                    xs, value, _, _ = drawn
                    ax.plot(xs, value - value[0], color=colour)
            ax.axhline(0, color="0.4", linewidth=0.8)
            ax.set_title(_said("D", D))
            ax.set_xscale("log", base=2)
            value_ticks(ax, [cell.G for line in every for cell in line])
        shared_labels(figure, LABELS["G"], "loss less that at the coarsest G (nats)")
        add_legend(figure, _entries("N", colours, law, band=False))
        return figure


def fit_against_data(comparison: Comparison) -> Figure:
    """Measured against predicted loss, and the residuals against each axis of the law; held-out runs are hollow."""
    residuals, fitted = comparison.residuals, ~comparison.held_out
    with style():
        figure, axes = row_of_panels(1 + len(comparison.columns), share=False)
        whole, *others = axes
        ends = [f(f(comparison.measured), f(comparison.predicted)) for f in (min, max)]
        whole.plot(ends, ends, color="0.4", linewidth=0.8)
        _dots(whole, comparison.predicted, comparison.measured, fitted)
        whole.set_xlabel("predicted loss (nats per token)")
        whole.set_ylabel("measured loss (nats per token)")
        limit = 1.15 * max(np.abs(residuals).max(), comparison.rmse)
        for ax, (symbol, values) in zip(others, comparison.columns.items(), strict=True):
            ax.axhspan(-comparison.rmse, comparison.rmse, color="0.88", zorder=0)
            ax.axhline(0, color="0.4", linewidth=0.8)
            _dots(ax, values, residuals, fitted)
            if values.min() > 0:
                ax.set_xscale("log", base=2 if symbol == "G" else 10)
                value_ticks(ax, values)
            ax.set_ylim(-limit, limit)
            ax.set_xlabel(comparison.labels[symbol].replace("$", r"\$"))
            ax.set_ylabel("measured − predicted (nats)")
        entries = [("fitted", {"color": _INK, "marker": "o", "linestyle": ""})]
        if comparison.held_out.any():
            entries.append(("held out", {"color": _INK, "marker": "o", "linestyle": "", "markerfacecolor": "white"}))
        entries.append((f"± RMSE of the fit, {comparison.rmse:.4f}", {"color": "0.88", "linewidth": 7}))
        add_legend(figure, entries, loc="outside lower center", ncols=3)
        return figure


_INK = "#1f5fa8"


def predictions(checked: "Sequence[Checked]") -> Figure:
    """Measured less predicted loss of each run that is done, over the predicted loss, with the predicted interval.

    Raises ValueError where no run is done."""
    known = [c for c in checked if c.error is not None]
    if not known:
        raise ValueError("no predicted run is done")
    with style():
        figure, (ax,) = row_of_panels(1)
        ax.axhline(0, color="0.4", linewidth=0.8)
        for c in known:
            if math.isfinite(c.low):
                ax.plot(
                    [c.predicted] * 2, [c.low - c.predicted, c.high - c.predicted], color="0.75", linewidth=4, zorder=1
                )
        before = np.array([c.before for c in known])
        _dots(ax, np.array([c.predicted for c in known]), np.array([c.error for c in known]), before)
        ax.set_xlabel("predicted loss (nats per token)")
        ax.set_ylabel("measured − predicted (nats)")
        entries = [("predicted before the run was done", {"color": _INK, "marker": "o", "linestyle": ""})]
        if not before.all():
            hollow = {"color": _INK, "marker": "o", "linestyle": "", "markerfacecolor": "white"}
            entries.append(("predicted after", hollow))
        if any(math.isfinite(c.low) for c in known):
            entries.append((f"{known[0].level:.0%} interval for such runs", {"color": "0.75", "linewidth": 4}))
        add_legend(figure, entries, loc="outside lower center", ncols=3)
        return figure


def _dots(ax: Axes, xs: np.ndarray, ys: np.ndarray, fitted: np.ndarray) -> None:
    ax.plot(xs[fitted], ys[fitted], "o", color=_INK, alpha=0.8, zorder=3)
    ax.plot(xs[~fitted], ys[~fitted], "o", color=_INK, markerfacecolor="white", zorder=3)


def _through(ax: Axes, line: Sequence[Cell], axis: str, colour: Any, law: "Law | None") -> None:
    """The law along a line of cells with its interval; without a law, thin lines from cell to cell."""
    if law is None:
        ax.plot([getattr(c, axis) for c in line], [c.loss for c in line], color=colour, linewidth=0.8)
    elif (drawn := _drawn(law, line, axis)) is not None:
        xs, value, low, high = drawn
        ax.plot(xs, value, color=colour)
        ax.fill_between(xs, low, high, color=colour, alpha=0.18, linewidth=0)


def _drawn(law: "Law", line: Sequence[Cell], axis: str) -> tuple[np.ndarray, ...] | None:
    """(x, loss, low, high) of the law from the line's first cell to its last; None where it is not defined there.

    Columns of the law that change along the line are interpolated between its cells, in logarithms if possible."""
    known = np.array([getattr(cell, axis) for cell in line], np.float64)
    xs = np.geomspace(known[0], known[-1], _POINTS)
    table = {}
    for column in law.columns.values():
        values = np.array([cell.rows[0].get(column) for cell in line], np.float64)  # None becomes NaN
        logarithmic = bool((values > 0).all())
        between = np.interp(np.log(xs), np.log(known), np.log(values) if logarithmic else values)
        table[column] = np.exp(between) if logarithmic else between
    value, low, high = law.predict(table)
    return (xs, value, low, high) if np.isfinite(value).all() else None


def row_of_panels(n: int, *, share: bool = True) -> tuple[Figure, list[Axes]]:
    """A row of panels with one axis of losses, in two rows from the fourth on."""
    columns = n if n <= 3 else math.ceil(n / 2)
    rows = math.ceil(n / columns)
    width = 1.9 + 2.75 * columns if columns > 2 else 8.2 if columns == 2 else 6.2
    figure = Figure(figsize=(width, 0.55 + 2.75 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=share, squeeze=False).ravel().tolist()
    for unused in axes[n:]:
        unused.remove()
    return figure, axes[:n]


def colour_by(values: Sequence[float]) -> dict[float, Any]:
    """Dark to light with the value."""
    ordered = sorted(set(values), key=_order)
    shades = matplotlib.colormaps["viridis"](np.linspace(0.02, 0.86, max(len(ordered), 2)))
    return dict(zip(ordered, shades.tolist(), strict=False))


def _spread(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the values, evenly over them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


def _entries(axis: str, colours: dict[float, Any], law: "Law | None", *, band: bool = True) -> list[tuple[str, dict]]:
    shown = [
        (_said(axis, v), {"color": colours[v], "marker": "o", "linestyle": ""}) for v in _spread([*colours], _LEGEND)
    ]
    if law is not None:
        shown.append((f"law {law.law}", {"color": "0.4"}))
        if band and law.samples:
            shown.append((f"its {law.level:.0%} interval", {"color": "0.4", "alpha": 0.25, "linewidth": 7}))
    return shown


def add_legend(
    figure: Figure, entries: Sequence[tuple[str, dict]], loc: str = "outside right upper", ncols: int = 1
) -> None:
    handles = [Line2D([], [], **style) for _, style in entries]
    figure.legend(handles, [text for text, _ in entries], loc=loc, ncols=ncols)


def shared_labels(figure: Figure, x: str, y: str) -> None:
    """One label for all panels."""
    figure.supxlabel(x, fontsize=_STYLE["axes.labelsize"])
    figure.supylabel(y, fontsize=_STYLE["axes.labelsize"])


def _said(axis: str, value: float | None) -> str:
    return "dense" if value is None else f"{axis} = {short(value)}"


def _order(value: float | None) -> float:
    return -1.0 if value is None else value


def loss_axis(axes: Sequence[Axes]) -> None:
    """The panels' shared axis of losses: logarithmic, with plain numbers, for losses span less than a decade."""
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
    """Ticks at the data's own values, as many as stand far enough apart on the logarithmic axis."""
    ordered = sorted(set(values))
    apart = _APART * math.log(ordered[-1] / ordered[0])
    ticks = ordered[:1]
    for value in ordered[1:]:
        if math.log(value / ticks[-1]) >= apart:
            ticks.append(value)
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    ax.xaxis.set_minor_locator(NullLocator())
