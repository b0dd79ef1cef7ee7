"""Figures of a fit, for notebooks and papers: each function returns a matplotlib Figure and shows nothing.

import moe_jax.laws.plots, then laws.plots.fit(fitted).savefig("fit.png").
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from moe_jax import tables
from moe_jax.laws.fitting import Fit
from moe_jax.laws.optima import Plan
from moe_jax.laws.scrutiny import DEVIANCE

_WORDS = {"N": "parameters N", "D": "tokens D", "G": "granularity G", "E": "expansion rate E", "S": "sparsity S"}


def fit(fitted: Fit) -> Figure:
    """Measured against predicted losses, and the residuals along each of the law's axes."""
    rows, law = fitted.rows, fitted.law
    symbols = law.form.symbols
    figure = Figure(figsize=(3.4 * (1 + len(symbols)), 3.4), layout="constrained")
    axes = figure.subplots(1, 1 + len(symbols))
    seen, left = ~fitted.held_out, fitted.held_out
    first = axes[0]
    first.axline((rows.losses.mean(),) * 2, slope=1, color="0.7", lw=1)
    for mask, name, marker in ((seen, "fitted", "o"), (left, "held out", "x")):
        if mask.any():
            first.plot(
                fitted.predicted[mask], rows.losses[mask], marker, ms=4, label=f"{name} ({mask.sum()})", alpha=0.8
            )
    first.set(xlabel="predicted loss", ylabel="measured loss", title=f"RMSE {law.errors['rmse_fit']:.4f} nats")
    first.legend(frameon=False)
    for ax, symbol in zip(axes[1:], symbols, strict=True):
        ax.axhline(0, color="0.7", lw=1)
        for mask, marker in ((seen, "o"), (left, "x")):
            ax.plot(rows.columns[symbol][mask], fitted.residuals[mask], marker, ms=4, alpha=0.8)
        if symbol != "S":
            _logarithmic(ax, rows.columns[symbol])
        ax.set(xlabel=_WORDS.get(symbol, symbol), ylabel="measured − predicted")
    return figure


def profile(table: pd.DataFrame, name: str, level: float = 0.8) -> Figure:
    """The deviance along a coefficient, what the data accept shaded; table: of laws.profile."""
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    ax = figure.subplots()
    kept = table["deviance"] <= DEVIANCE[level]
    ax.plot(table["value"], table["deviance"], "o-", ms=3)
    ax.axhline(DEVIANCE[level], color="0.6", lw=1, ls="--")
    ax.fill_between(table["value"], 0, 1, where=kept, transform=ax.get_xaxis_transform(), alpha=0.15, lw=0)
    ax.set(xlabel=name, ylabel="deviance", ylim=(0, 10 * DEVIANCE[level]), title=f"accepted at {level:.0%}: shaded")
    return figure


def optimum(plans: Sequence[Plan]) -> Figure:
    """Tokens, active parameters and loss of compute-optimal plans, and their bands; hollow: extrapolated."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    flops = np.array([p.values["flops"] for p in plans])
    beyond = np.array([bool(p.outside) for p in plans])
    heads = {"tokens": "tokens", "n_active_nonemb": "active parameters, no embeddings", "loss": "loss"}
    for ax, (key, head) in zip(figure.subplots(1, 3), heads.items(), strict=True):
        values = np.array([p.values[key] for p in plans])
        ax.plot(flops, values, color="C0", lw=1)
        for mask, face, name in ((~beyond, "C0", "within the fitted range"), (beyond, "white", "extrapolated")):
            if mask.any():
                ax.plot(flops[mask], values[mask], "o", ms=5, color="C0", mfc=face, label=name)
        if all(key in p.bands for p in plans):
            low, high = np.array([p.bands[key] for p in plans]).T
            ax.fill_between(flops, low, high, alpha=0.2, lw=0)
        ax.set(xscale="log", xlabel="training FLOPs", ylabel=head)
        if key != "loss":
            ax.set_yscale("log")
    figure.axes[-1].legend(frameon=False)
    return figure


def _logarithmic(ax, values: np.ndarray) -> None:
    """A logarithmic x axis with a tick at each value, where these are few; never with colliding minor labels."""
    ax.set_xscale("log")
    ticks = np.unique(values)
    if len(ticks) <= 8:
        ax.set_xticks(ticks, [tables.short(v) for v in ticks], fontsize=8)
    ax.xaxis.set_minor_formatter(NullFormatter())
