"""The residuals of a fit against the law's axes, and against columns that the law has no term for."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from moe_jax.laws.fitting import Fit
from moe_jax.laws.plots import canvas
from moe_jax.laws.residual_columns import explain_residuals, is_words
from moe_jax.text import percent

_MOST_OUTSIDE = 6  # columns outside the law that get a panel


@canvas.drawn
def residuals(fitted: Fit, explained: pd.DataFrame | None = None) -> Figure:
    """Measured − predicted against each axis of the law, then against the columns outside it that explain most.

    explained: the table of laws.explain_residuals, whose shares stand above the panels (default: computed here). The
    line joins means: of each value, or of five groups of equal size. Hollow: held-out runs."""
    table = explain_residuals(fitted) if explained is None else explained
    inside = table[table["symbol"] != ""]
    outside = table[(table["symbol"] == "") & (table["moves_with"] == "")].head(_MOST_OUTSIDE)
    shown = [*inside.itertuples(), *outside.itertuples()]
    figure, axes = canvas.panels(max(len(shown), 1), width=3.7, height=2.7)
    rmse = fitted.law.errors["rmse_fit"]
    limit = 1.15 * max(np.abs(fitted.residuals).max(), rmse)
    for ax, row in zip(axes, shown, strict=False):
        source = fitted.rows.columns[row.symbol] if row.symbol else fitted.rows.table[row.column]
        values = pd.Series(np.asarray(source))
        ax.axhspan(-rmse, rmse, color="0.9", zorder=0, label=f"± RMSE of the fit, {rmse:.4f}")
        ax.axhline(0, color=canvas.GREY, lw=0.8)
        x = _place(ax, values)
        canvas.points(ax, x, fitted.residuals, fitted.held_out, canvas.BLUE if row.symbol else canvas.GREEN, size=4)
        middle, mean = _means(x[~fitted.held_out], fitted.residuals[~fitted.held_out])
        ax.plot(middle, mean, color=canvas.ORANGE, lw=1.6, zorder=4, label="mean")
        ax.set_xlabel(canvas.word(row.symbol, row.column) if row.symbol else str(row.column).replace("$", r"\$"))
        if not row.symbol and not is_words(values) and values.min() <= 0 <= values.max():
            ax.axvline(0, color="0.85", lw=0.6, zorder=0)
        where = "explains" if row.symbol else "not in the law, explains"
        ax.set_title(f"{where} {percent(max(row.share, 0.0))} (p = {row.p:.2g})")
        ax.set_ylim(-limit, limit)
    for ax in axes[::3]:
        ax.set_ylabel("measured − predicted (nats)")
    canvas.below(figure, axes[0], ncols=4)
    return figure


def _place(ax: Axes, values: pd.Series) -> np.ndarray:
    """Where the values lie on the x axis: words side by side, positive numbers that span much on a logarithm."""
    if is_words(values):
        words = sorted(values.dropna().astype(str).unique())
        ax.set_xticks(range(len(words)), [w[:14] for w in words], rotation=0 if len(words) <= 3 else 30)
        ax.set_xlim(-0.5, len(words) - 0.5)
        return values.astype(str).map({w: i for i, w in enumerate(words)}).to_numpy(float)
    x = values.to_numpy(float)
    known = x[np.isfinite(x)]
    if known.min() > 0 and known.max() > 3 * known.min():
        canvas.log_x(ax, known)
        ax.set_xlim(known.min() / 1.2, known.max() * 1.2)
        if len(np.unique(known)) > 8:
            canvas.decades(ax.xaxis)
    return x


def _means(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, mean of y) of each value, or of five groups of equal size where there are more than eight values."""
    kept = np.isfinite(x)
    x, y = x[kept], y[kept]
    if len(np.unique(x)) <= 8:
        at = np.unique(x)
        return at, np.array([y[x == v].mean() for v in at])
    parts = np.array_split(np.argsort(x, kind="stable"), 5)
    return np.array([np.median(x[p]) for p in parts]), np.array([y[p].mean() for p in parts])
