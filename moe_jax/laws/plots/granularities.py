"""Contours of the loss over (N, G) at fixed budgets: where finer experts stop paying."""

import numpy as np
from matplotlib.figure import Figure

from moe_jax import errors
from moe_jax.laws.choices import GRANULARITIES
from moe_jax.laws.fitting import Fit
from moe_jax.laws.plots import along_budgets, canvas
from moe_jax.text import short

_LEVELS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)  # nats above the lowest


@canvas.drawn
def granularities(fitted: Fit, beyond: float = along_budgets.BEYOND) -> Figure:
    """Nats above the best, over N and G, at the budgets of a middling run, of the dearest, and `beyond` times that.

    D follows from the budget, so that routing's own FLOPs are paid. Dashed: the best G of each N; star: the best of
    all; dots: N and G of the runs. Raises UserError for a law without G, or one that cannot plan a budget."""
    law = along_budgets.without_samples(fitted.law)
    if "G" not in law.form.symbols:
        raise errors.UserError(f"{law.name} has no G")
    planner = along_budgets.planner_of(law)
    runs, own = along_budgets.runs_of(fitted, planner), fitted.rows.columns
    top = runs.flops.max()
    chosen = np.unique(np.clip([np.median(runs.flops), top, top * beyond], 1e12, 1e35))
    finest = max(own["G"].max(), GRANULARITIES[-1])
    figure, axes = canvas.panels(len(chosen), width=3.9, height=3.4)
    colours = [*reversed(canvas.shades(len(_LEVELS) + 1))]
    for ax, C in zip(axes, chosen, strict=True):
        middle = along_budgets.axes_of(law, [planner.best(C)])
        others = {s: float(v[0]) for s, v in middle.items() if s not in "NDG"}
        N, G = np.meshgrid(float(middle["N"][0]) * np.geomspace(1 / 20, 20, 90), np.geomspace(1, finest, 33))
        per_token = along_budgets.flops_per_token(planner, {"N": N, "G": G, **others})
        loss = law.loss_at({"N": N, "D": C / per_token, "G": G, **others})
        above = loss - loss.min()
        ax.contourf(N, G, above, levels=(0, *_LEVELS), colors=colours[:-1], extend="max", alpha=0.55)
        drawn = ax.contour(N, G, above, levels=_LEVELS, colors="0.25", linewidths=0.6)
        ax.clabel(drawn, fmt="+%g", fontsize=7)
        ax.plot(N[0], G[above.argmin(0), 0], "--", color=canvas.ORANGE, lw=1.3, label="best G of each N")
        best = np.unravel_index(above.argmin(), above.shape)
        ax.plot(N[best], G[best], "*", ms=12, color=canvas.ORANGE, mec="black", mew=0.5, label="best", zorder=4)
        inside = (own["N"] > N.min()) & (own["N"] < N.max())
        ax.plot(own["N"][inside], own["G"][inside], "o", ms=3, color="black", alpha=0.7, label="runs")
        ax.set(xscale="log", xlim=(N.min(), N.max()), ylim=(1, finest), title=f"{C:.2g} FLOPs".replace("e+", "e"))
        ax.set_yscale("log", base=2)
        ticks = [g for g in GRANULARITIES if g <= finest]
        ax.set_yticks(ticks, [short(g) for g in ticks])
        ax.grid(False)
        ax.set_xlabel(canvas.word("N", law.data.columns.get("N", "")))
        canvas.decades(ax.xaxis)
    axes[0].set_ylabel(canvas.word("G", law.data.columns.get("G", "")))
    figure.suptitle(f"{law.name}: nats above the best plan of a budget", fontsize=10)
    canvas.below(figure, axes)
    return figure
