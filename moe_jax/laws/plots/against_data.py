"""A fit against its data: measured against predicted losses, and residuals along the law's axes."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from moe_jax.laws.fitting import Fit
from moe_jax.laws.plots import canvas


@canvas.drawn
def fit(fitted: Fit, labels: Mapping[str, str] | None = None) -> Figure:
    """Measured against predicted losses, and the residuals along each of the law's axes; hollow: held-out runs.

    labels: what the axes are called, by the law's symbol."""
    rows, law = fitted.rows, fitted.law
    rmse, words = law.errors["rmse_fit"], canvas.WORDS | dict(labels or {})
    figure, (first, *others) = canvas.panels(1 + len(law.form.symbols), height=2.8, most=2)
    first.axline((rows.losses.mean(),) * 2, slope=1, color=canvas.GREY, lw=0.8)
    canvas.points(first, fitted.predicted, rows.losses, fitted.held_out)
    first.set(xlabel="predicted loss (nats per token)", ylabel="measured loss (nats per token)")
    limit = 1.15 * max(np.abs(fitted.residuals).max(), rmse)
    for ax, symbol in zip(others, law.form.symbols, strict=True):
        ax.axhspan(-rmse, rmse, color="0.88", zorder=0, label=f"± RMSE of the fit, {rmse:.4f}")
        ax.axhline(0, color=canvas.GREY, lw=0.8)
        canvas.points(ax, rows.columns[symbol], fitted.residuals, fitted.held_out)
        if symbol != "S" and rows.columns[symbol].min() > 0:
            canvas.log_x(ax, rows.columns[symbol])
        ax.set(xlabel=words.get(symbol, symbol).replace("$", r"\$"), ylabel="measured − predicted (nats)")
        ax.set_ylim(-limit, limit)
    canvas.below(figure, others[0])
    return figure
