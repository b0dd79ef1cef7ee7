"""Loss against compute: the runs, the law's compute-optimal frontier with its band, and what lies beyond the runs."""

import numpy as np
from matplotlib.figure import Figure

from moe_jax.laws.fitting import Fit
from moe_jax.laws.plots import along_budgets, canvas


@canvas.drawn
def extrapolation(fitted: Fit, beyond: float = along_budgets.BEYOND) -> Figure:
    """Left: the loss of runs, and of the law's compute-optimal plans up to `beyond` times the dearest run, with the
    interval of the law and that of a single run. Right: measured − predicted against compute, where a drift of the
    law's error shows before it is extrapolated. Hollow: held-out runs.

    Raises UserError for a law that cannot plan a budget, one without N and D among others."""
    law = fitted.law
    planner = along_budgets.planner_of(along_budgets.without_samples(law))
    runs = along_budgets.runs_of(fitted, planner)
    at = along_budgets.budgets(runs.flops, beyond, 25)
    axes = along_budgets.axes_of(law, along_budgets.plans(planner, at))
    figure, (left, right) = canvas.panels(2, width=4.6, height=3.3)
    left.plot(at, law.loss_at(axes), color=canvas.ORANGE, label=f"{law.name}, compute-optimal")
    if law.samples:
        for residual, alpha, what in ((True, 0.14, "of a single run"), (False, 0.3, "of the law")):
            _, low, high = law.predict(axes, residual=residual)
            left.fill_between(
                at, low, high, color=canvas.ORANGE, alpha=alpha, lw=0, label=f"{law.level:.0%} interval {what}"
            )
    canvas.points(left, runs.flops, fitted.rows.losses, fitted.held_out)
    dearest = runs.flops[~fitted.held_out].max()
    left.axvspan(dearest, at[-1], color="0.94", zorder=0, label="beyond the fitted runs")
    left.set(xscale="log", xlim=(min(at[0], runs.flops.min()) / 1.5, at[-1]), ylabel=canvas.LOSS)
    limit = 1.15 * max(np.abs(fitted.residuals).max(), law.errors["rmse_fit"])
    rmse = law.errors["rmse_fit"]
    right.axhspan(-rmse, rmse, color="0.88", zorder=0, label=f"± RMSE of the fit, {rmse:.4f}")
    right.axhline(0, color=canvas.GREY, lw=0.8)
    canvas.points(right, runs.flops, fitted.residuals, fitted.held_out)
    right.set(xscale="log", ylim=(-limit, limit), ylabel="measured − predicted (nats)")
    named = runs.measured or f"{along_budgets.cost_name(planner)}, d_model / n_layers = {planner.shape.aspect:g}"
    for ax in (left, right):
        ax.set_xlabel(f"{canvas.FLOPS} ({named})")
        canvas.decades(ax.xaxis, flops=True)
    canvas.below(figure, (left, right))
    return figure
