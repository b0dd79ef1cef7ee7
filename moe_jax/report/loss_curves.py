"""The figure of training losses over tokens. Losses are nats per token."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_jax.laws.plots.figure_style import style
from moe_jax.report.panels import (
    MOST_ENTRIES,
    MOST_PANELS,
    add_legend,
    axis_value,
    colour_by,
    dense_first,
    loss_axis,
    row_of_panels,
    shared_labels,
    spread_over,
)
from moe_jax.sweep.run_state import State

EARLIEST = 0.02  # of the longest run's tokens: where loss curves begin


@dataclasses.dataclass(frozen=True)
class Curve:
    """The logged losses of one run, at least one. tokens, losses: (steps,)."""

    N: int
    D: int
    G: float | None
    tokens: np.ndarray
    losses: np.ndarray
    state: State
    eval_loss: float | None  # None: not finished


def loss_curves(curves: Sequence[Curve]) -> Figure:
    """Training loss against tokens, one panel per G, one colour per N; a dot is the held-out loss at the end.

    Curves begin at EARLIEST of the longest run: before that all fall alike, and would take most of the picture."""
    begin, end = (f * max(curve.tokens[-1] for curve in curves) for f in (EARLIEST, 1.15))
    with style():
        panels = spread_over(sorted({curve.G for curve in curves}, key=dense_first), MOST_PANELS)
        figure, axes = row_of_panels(len(panels))
        colours = colour_by([curve.N for curve in curves])
        for ax, G in zip(axes, panels, strict=True):
            for curve in curves:
                if curve.G == G:
                    _draw_curve(ax, curve, colours[curve.N])
            ax.set_title(axis_value("G", G))
            ax.set_xscale("log")
            ax.set_xlim(begin, end)
        loss_axis(axes)
        seen = [
            y for curve in curves for y in (*_smooth(curve)[curve.tokens >= begin], curve.eval_loss) if y is not None
        ]
        axes[0].set_ylim(0.97 * min(seen), 1.03 * max(seen))
        shared_labels(figure, "tokens seen", "loss (nats per token)")
        entries = [(axis_value("N", N), {"color": colours[N]}) for N in spread_over([*colours], MOST_ENTRIES)]
        entries.append(("held-out loss at the end", {"color": "0.3", "marker": "o", "linestyle": ""}))
        if any(curve.state == State.DIVERGED for curve in curves):
            entries.append(("diverged", {"color": "0.3", "marker": "x", "linestyle": ""}))
        add_legend(figure, entries)
        return figure


def _draw_curve(ax: Axes, curve: Curve, colour: Any) -> None:
    ax.plot(curve.tokens, curve.losses, color=colour, alpha=0.13, linewidth=0.7)
    ax.plot(curve.tokens, _smooth(curve), color=colour, linewidth=1.1)
    if curve.eval_loss is not None:
        ax.plot(curve.tokens[-1], curve.eval_loss, "o", color=colour, markersize=4)
    elif curve.state == State.DIVERGED:
        ax.plot(curve.tokens[-1], curve.losses[-1], "x", color=colour, markersize=6)


def _smooth(curve: Curve) -> np.ndarray:
    """The mean loss over ±15% of the tokens, which smooths evenly on a logarithmic axis."""
    total = np.concatenate([[0.0], np.cumsum(curve.losses)])
    low = np.searchsorted(curve.tokens, curve.tokens / 1.15)
    high = np.searchsorted(curve.tokens, curve.tokens * 1.15, side="right")
    return (total[high] - total[low]) / (high - low)
