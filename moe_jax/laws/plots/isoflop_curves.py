"""Iso-FLOP curves of a fitted form: its loss against N at fixed budgets."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from moe_jax.laws.fitting import Fit
from moe_jax.laws.plots import along_budgets, canvas
from moe_jax.text import short

_BUDGETS = 6
_NEAR = 0.15  # share of a budget by which a run's FLOPs may differ to be drawn at it


@canvas.drawn
def isoflop_curves(fitted: Fit, budgets: Sequence[float] | None = None) -> Figure:
    """The law's loss against N at each budget (default: six over the runs, and beyond), D following from the budget.

    Star: the minimum, with the law's interval where it has one. Dashed: sizes outside the runs. Dots: runs within 15%
    of a budget. A law with G, E or S keeps the values that are best at each budget. Raises UserError for a law that
    cannot plan a budget."""
    law = along_budgets.without_samples(fitted.law)
    planner = along_budgets.planner_of(law)
    runs = along_budgets.runs_of(fitted, planner)
    at = along_budgets.budgets(runs.flops, 10, _BUDGETS) if budgets is None else np.array([*map(float, budgets)])
    plans = along_budgets.plans(planner, at)
    best, own = along_budgets.axes_of(law, plans), fitted.rows.columns
    minima, lowest = best["N"], law.loss_at(best)
    figure, (ax,) = canvas.panels(1, width=6.6, height=4.0)
    colours, entries = canvas.shades(len(at)), []
    for i, C in enumerate(at):
        others = {s: float(v[i]) for s, v in best.items() if s not in "ND"}
        N = minima[i] * np.geomspace(1 / 30, 30, 161)
        loss = law.loss_at({"N": N, "D": C / along_budgets.flops_per_token(planner, {"N": N, **others}), **others})
        inside = (own["N"].min() <= N) & (own["N"].max() >= N)
        ax.plot(N, loss, "--", color=colours[i], lw=0.9)
        ax.plot(np.where(inside, N, np.nan), loss, color=colours[i], lw=1.8)
        near = np.abs(runs.flops / C - 1) <= _NEAR
        ax.plot(own["N"][near], fitted.rows.losses[near], "o", ms=4, color=colours[i], alpha=0.8)
        said = "".join(f", {s} = {short(v)}" for s, v in others.items())
        entries.append((Line2D([], [], color=colours[i], lw=1.8), f"{C:.2g} FLOPs{said}".replace("e+", "e")))
        if fitted.law.samples:
            error = np.array(_interval(fitted.law, planner, C, others, N))
            ax.hlines(lowest[i], *error, color=canvas.ORANGE, lw=2.5)
    ax.plot(minima, lowest, "*", ms=10, color=canvas.ORANGE, mec="black", mew=0.5, zorder=4)
    wide = 2.5 if fitted.law.samples else 0
    said = f"minimum, {fitted.law.level:.0%} interval" if fitted.law.samples else "minimum"
    entries.append((Line2D([], [], color=canvas.ORANGE, marker="*", ms=10, mec="black", mew=0.5, lw=wide), said))
    entries.append((Line2D([], [], color="0.3", ls="--", lw=0.9), "outside the runs"))
    ax.set(xscale="log", xlabel=canvas.word("N", law.data.columns.get("N", "")), ylabel=canvas.LOSS)
    ax.set(ylim=(lowest.min() - 0.05 * np.ptp(lowest), lowest.max() + 0.35 * max(np.ptp(lowest), 0.02)))
    ax.set_title(f"{law.name} at fixed budgets ({along_budgets.cost_name(planner)})")
    canvas.decades(ax.xaxis)
    figure.legend(*zip(*entries, strict=True), loc="outside right upper")
    return figure


def _interval(law, planner, C: float, others: dict[str, float], N: np.ndarray) -> tuple[float, float]:
    """The central level of the minima of the bootstrap samples along one budget."""
    fine = np.exp(np.linspace(np.log(N[0]), np.log(N[-1]), 801))
    axes = {"N": fine, "D": C / along_budgets.flops_per_token(planner, {"N": fine, **others}), **others}
    loss = law.form.loss(
        {s: np.asarray(v)[None] for s, v in axes.items()}, {k: v[:, None] for k, v in law.samples.items()}
    )
    low, high = np.quantile(fine[np.argmin(loss, 1)], [(1 - law.level) / 2, (1 + law.level) / 2])
    return float(low), float(high)
