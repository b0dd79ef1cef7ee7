"""Compute-optimal N, D and G against the budget."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from moe_jax.laws.planner import Plan
from moe_jax.laws.plots import canvas
from moe_jax.text import short

_HEADS = {
    "n_active_nonemb": "active parameters, no embeddings",
    "tokens": "tokens",
    "granularity": "granularity G",
    "expansion_rate": "expansion rate E",
    "loss": canvas.LOSS,
}
_CHOSEN = ("granularity", "expansion_rate")  # among listed values, and constant under most laws


@canvas.drawn
def optimum(plans: Sequence[Plan]) -> Figure:
    """Active parameters, tokens, loss, and G and E where they vary, of compute-optimal plans (in the order of their
    budgets), with intervals; hollow points are extrapolated."""
    flops = np.array([p.values["flops"] for p in plans])
    beyond = np.array([bool(p.outside) for p in plans])
    shown = {k: head for k, head in _HEADS.items() if k not in _CHOSEN or len({p.values[k] for p in plans}) > 1}
    figure, axes = canvas.panels(len(shown), width=3.6, height=2.9, most=2 if len(shown) == 4 else 3)
    for ax, (key, head) in zip(axes, shown.items(), strict=True):
        values = np.array([p.values[key] for p in plans])
        ax.plot(flops, values, color=canvas.BLUE, lw=1, drawstyle="steps-mid" if key in _CHOSEN else "default")
        for mask, face, name in (
            (~beyond, canvas.BLUE, "within the fitted range"),
            (beyond, "white", "extrapolated"),
        ):
            if mask.any():
                ax.plot(flops[mask], values[mask], "o", color=canvas.BLUE, mfc=face, label=name)
        if all(key in p.intervals for p in plans):
            low, high = np.array([p.intervals[key] for p in plans]).T
            step = "mid" if key in _CHOSEN else None
            ax.fill_between(
                flops, low, high, step=step, color=canvas.BLUE, alpha=0.2, lw=0, label="interval of the law"
            )
        ax.set(xscale="log", xlabel=canvas.FLOPS, ylabel=head)
        canvas.decades(ax.xaxis, flops=True)
        if key in _CHOSEN:
            ax.set_yscale("log", base=2)
            least, most = ax.dataLim.intervaly
            ticks = 2.0 ** np.arange(np.floor(np.log2(least)), np.ceil(np.log2(most)) + 1)
            ax.set_yticks(ticks, [short(t) for t in ticks])
            ax.yaxis.set_minor_locator(NullLocator())
        elif key != "loss":
            ax.set_yscale("log")
            canvas.decades(ax.yaxis)
    canvas.below(figure, axes)
    return figure
