"""The figure of a law of learning rates or batches: each cell's best value beside the law's."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from moe_jax import text
from moe_jax.laws.fitting import Fit

_BLUE = "#1f5fa8"
_LABELS = {
    "learning_rate": "learning rate", "batch_tokens": "batch (tokens)", "N": "parameters N", "D": "tokens D",
    "G": "granularity G", "E": "expansion rate E", "d": "d_model", "B": "batch B (tokens)", "C": "training FLOPs C",
}  # fmt: skip


def best_values(fitted: Fit, labels: Mapping[str, str] | None = None) -> Figure:
    """Measured best values against the law's, and their difference in logarithms along each axis.

    Hollow: cells held out. labels: what the axes are called, by the law's symbol."""
    law, rows, words = fitted.law, fitted.rows, _LABELS | dict(labels or {})
    quantity = words[law.form.quantity]
    rmse = law.errors["rmse_fit"]
    panels = 1 + len(law.form.symbols)
    figure = Figure(figsize=(8.2, 0.5 + 2.8 * -(-panels // 2)), layout="constrained")
    first, *others = figure.subplots(-(-panels // 2), 2, squeeze=False).ravel()
    ends = np.array([min(fitted.predicted.min(), rows.losses.min()), max(fitted.predicted.max(), rows.losses.max())])
    ends *= [0.8, 1.25]
    first.fill_between(ends, ends * np.exp(-rmse), ends * np.exp(rmse), color="0.88", lw=0, zorder=0)
    first.plot(ends, ends, color="0.4", lw=0.8)
    _points(first, fitted, fitted.predicted, rows.losses)
    first.set(xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel=f"{quantity} by the law")
    first.set_ylabel(f"best {quantity} measured")
    _sparse_ticks(first.xaxis), _sparse_ticks(first.yaxis)
    errors = np.log(rows.losses / fitted.predicted)
    limit = 1.15 * max(np.abs(errors).max(), rmse, 1e-9)
    for ax, symbol in zip(others, law.form.symbols, strict=False):
        ax.axhspan(-rmse, rmse, color="0.88", lw=0, zorder=0, label=f"± RMSE of the fit, {rmse:.3f}")
        ax.axhline(0, color="0.4", lw=0.8)
        _points(ax, fitted, rows.columns[symbol], errors)
        ax.set(xscale="log", ylim=(-limit, limit), ylabel="ln measured − ln law")
        ax.set_xlabel(words.get(symbol, symbol).replace("$", r"\$"))
        _ticks_of(ax, rows.columns[symbol])
    for unused in others[panels - 1 :]:
        unused.remove()
    handles, names = others[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _points(ax, fitted: Fit, x: np.ndarray, y: np.ndarray) -> None:
    for mask, face, name in ((~fitted.held_out, _BLUE, "cells fitted"), (fitted.held_out, "white", "held out")):
        if mask.any():
            ax.plot(x[mask], y[mask], "o", ms=5, color=_BLUE, mfc=face, label=f"{name} ({mask.sum()})", zorder=3)


def _ticks_of(ax, values: np.ndarray) -> None:
    """Labels at the values where they are few and far apart, as in a grid; else at round numbers."""
    known = np.unique(values)
    apart = np.diff(np.log(known))
    if 1 < len(known) <= 6 and apart.min() > 0.15 * apart.sum():
        ax.set_xticks(known, [text.short(value) for value in known])
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        _sparse_ticks(ax.xaxis)


def _sparse_ticks(axis) -> None:
    """Labels at 1, 2 and 5 of each decade, at most six."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text.short(value) if value >= 1 else f"{value:g}"))
