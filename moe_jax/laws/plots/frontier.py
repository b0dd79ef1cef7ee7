"""The efficiency frontier: compute-optimal N and D over a map of the law's loss."""

import numpy as np
from matplotlib.figure import Figure

from moe_jax import errors
from moe_jax.laws.fitting import Fit
from moe_jax.laws.plots import along_budgets, canvas
from moe_jax.text import short

_GRID = 80


@canvas.drawn
def frontier(fitted: Fit, beyond: float = along_budgets.BEYOND) -> Figure:
    """Iso-loss contours over (N, D), lines of equal training FLOPs, the compute-optimal frontier, and the runs.

    A law with G, E or S is cut at the values that are best at the dearest run's budget, and says so. Raises UserError
    for a law that cannot plan a budget."""
    law = along_budgets.without_samples(fitted.law)
    planner = along_budgets.planner_of(law)
    runs = along_budgets.runs_of(fitted, planner)
    middle = planner.best(np.clip(runs.flops.max(), 1e12, 1e35)).values
    cut = along_budgets.planner_of(law, granularity=middle["granularity"], expansion_rate=middle["expansion_rate"])
    at = along_budgets.budgets(runs.flops, beyond, 21)
    best = along_budgets.axes_of(law, along_budgets.plans(cut, at))
    others = {s: float(v[0]) for s, v in best.items() if s not in "ND"}

    figure, (ax,) = canvas.panels(1, width=6.4, height=4.6)
    own = fitted.rows.columns
    ends = {s: (min(own[s].min(), best[s].min()), max(own[s].max(), best[s].max())) for s in "ND"}
    N, D = np.meshgrid(*(np.geomspace(ends[s][0] / 1.6, ends[s][1] * 1.6, _GRID) for s in "ND"))
    loss = law.loss_at({"N": N, "D": D, **others})
    if not np.isfinite(loss).all():
        raise errors.UserError(f"{law.name} has no finite loss over the map of N and D")
    drawn = ax.contour(N, D, loss, levels=_levels(law.loss_at({**best})), cmap="viridis", linewidths=1.1, zorder=1)
    ax.clabel(drawn, fmt="%.3g", fontsize=7.5, colors="0.2", inline_spacing=2)
    for C in at[::4]:
        sizes = np.geomspace(N.min(), N.max(), _GRID)
        tokens = C / along_budgets.flops_per_token(cut, {"N": sizes, **others})
        ax.plot(
            sizes, tokens, color="0.6", lw=0.8, ls=":", zorder=0, label="equal training FLOPs" if at[0] == C else ""
        )
        inside = np.flatnonzero((tokens < D.max()) & (tokens > D.min()))
        if len(inside):
            where = (sizes[inside[-1]], tokens[inside[-1]])
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.5}
            said = f"{C:.0e}".replace("e+", "e")
            ax.annotate(said, where, fontsize=7, color=canvas.GREY, ha="right", va="bottom", bbox=box)
    reached = at <= runs.flops.max()
    ax.plot(best["N"], best["D"], "--", color=canvas.ORANGE, lw=1.6, label="compute-optimal, beyond the runs")
    ax.plot(
        best["N"][reached],
        best["D"][reached],
        color=canvas.ORANGE,
        lw=2.4,
        label="compute-optimal, budgets of the runs",
    )
    canvas.points(ax, own["N"], own["D"], fitted.held_out, size=4)
    ax.set(xscale="log", yscale="log", xlim=(N.min(), N.max()), ylim=(D.min(), D.max()))
    ax.set(
        xlabel=canvas.word("N", law.data.columns.get("N", "")), ylabel=canvas.word("D", law.data.columns.get("D", ""))
    )
    said = ", ".join(f"{s} = {short(v)}" for s, v in others.items())
    ax.set_title(f"{law.name}: loss in nats per token" + (f" at {said}" if said else ""))
    for axis in (ax.xaxis, ax.yaxis):
        canvas.decades(axis)
    canvas.below(figure, ax, ncols=2)
    return figure


def _levels(along: np.ndarray) -> np.ndarray:
    """Losses between the best and the worst plan, denser where the law flattens."""
    return np.unique(np.round(np.interp(np.linspace(0, len(along) - 1, 12), np.arange(len(along)), along), 3))
