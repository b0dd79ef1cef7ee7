"""Figures of a fit, for notebooks and papers: each function returns a matplotlib Figure and shows nothing.

laws.plots.fit(fitted).savefig("fit.png"); as the last line of a notebook's cell a figure shows itself."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from moe_jax import text
from moe_jax.laws.diagnostics import DEVIANCE
from moe_jax.laws.fitting import Fit
from moe_jax.laws.isoflop.fits import IsoFlop
from moe_jax.laws.planner import Plan

_WORDS = {"N": "parameters N", "D": "tokens D", "G": "granularity G", "E": "expansion rate E", "S": "sparsity S"}


def fit(fitted: Fit, labels: Mapping[str, str] | None = None) -> Figure:
    """Measured against predicted losses, and the residuals along each of the law's axes; hollow: held-out runs.

    labels: what the axes are called, by the law's symbol."""
    rows, law = fitted.rows, fitted.law
    rmse, words = law.errors["rmse_fit"], _WORDS | dict(labels or {})
    n = 1 + len(law.form.symbols)
    figure = Figure(figsize=(8.2, 0.5 + 2.8 * -(-n // 2)), layout="constrained")
    first, *others = figure.subplots(-(-n // 2), 2, squeeze=False).ravel()
    first.axline((rows.losses.mean(),) * 2, slope=1, color="0.4", lw=0.8)
    _fitted_and_held_out(first, fitted, fitted.predicted, rows.losses)
    first.set(xlabel="predicted loss (nats per token)", ylabel="measured loss (nats per token)")
    limit = 1.15 * max(np.abs(fitted.residuals).max(), rmse)
    for ax, symbol in zip(others, law.form.symbols, strict=False):
        ax.axhspan(-rmse, rmse, color="0.88", zorder=0, label=f"± RMSE of the fit, {rmse:.4f}")
        ax.axhline(0, color="0.4", lw=0.8)
        _fitted_and_held_out(ax, fitted, rows.columns[symbol], fitted.residuals)
        if symbol != "S" and rows.columns[symbol].min() > 0:
            _logarithmic(ax, rows.columns[symbol])
        ax.set(xlabel=words.get(symbol, symbol).replace("$", r"\$"), ylabel="measured − predicted (nats)")
        ax.set_ylim(-limit, limit)
    for unused in others[n - 1 :]:
        unused.remove()
    handles, names = others[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _fitted_and_held_out(ax, fitted: Fit, x: np.ndarray, y: np.ndarray) -> None:
    for mask, face, name in ((~fitted.held_out, "#1f5fa8", "fitted"), (fitted.held_out, "white", "held out")):
        if mask.any():
            ax.plot(x[mask], y[mask], "o", ms=5, color="#1f5fa8", mfc=face, label=f"{name} ({mask.sum()})", zorder=3)


def profile(table: pd.DataFrame, name: str, level: float = 0.8) -> Figure:
    """The deviance along a coefficient, with the accepted range shaded; table: from laws.profile."""
    figure = Figure(figsize=(4.2, 3.2), layout="constrained")
    ax = figure.subplots()
    kept = table["deviance"] <= DEVIANCE[level]
    ax.plot(table["value"], table["deviance"], "o-", ms=3)
    ax.axhline(DEVIANCE[level], color="0.6", lw=1, ls="--")
    ax.fill_between(table["value"], 0, 1, where=kept, transform=ax.get_xaxis_transform(), alpha=0.15, lw=0)
    ax.set(xlabel=name, ylabel="deviance", ylim=(0, 10 * DEVIANCE[level]), title=f"accepted at {level:.0%}: shaded")
    return figure


def optimum(plans: Sequence[Plan]) -> Figure:
    """Tokens, active parameters and loss of compute-optimal plans with intervals; hollow points are extrapolated."""
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
        if all(key in p.intervals for p in plans):
            low, high = np.array([p.intervals[key] for p in plans]).T
            ax.fill_between(flops, low, high, alpha=0.2, lw=0)
        ax.set(xscale="log", xlabel="training FLOPs", ylabel=head)
        if key != "loss":
            ax.set_yscale("log")
    figure.axes[-1].legend(frameon=False)
    return figure


def isoflop(found: IsoFlop) -> Figure:
    """The parabola of each budget and the power law through their minima; or the surfaces, a panel a budget.

    found: from laws.isoflop.fit, with its runs; a fit that was read from a file is drawn without runs."""
    return _parabolas(found) if found.parabolas is not None else _surfaces(found)


def _parabolas(found: IsoFlop) -> Figure:
    through = found.parabolas
    figure = Figure(figsize=(12.5, 3.9), layout="constrained")
    runs, sizes, tokens = figure.subplots(1, 3)
    shades = colormaps["viridis"](np.linspace(0, 0.88, len(through.table)))
    axes = found.runs.columns if found.runs is not None else None
    for (_, row), shade in zip(through.table.iterrows(), shades, strict=True):
        seen = np.array([row["N"]])
        if axes is not None:
            mine = found.of_budget(row["flops"])
            seen = axes["N"][mine]
            runs.plot(seen, found.runs.losses[mine], "o", ms=4, color=shade, alpha=0.8)
        at = np.geomspace(seen.min(), seen.max(), 60)
        runs.plot(at, row["loss"] + row["curvature"] * np.log(at / row["N"]) ** 2, color=shade, lw=1.2)
        if row["usable"]:
            runs.plot(row["N"], row["loss"], "*", ms=10, color=shade, mec="black", mew=0.5)
    entries = [Line2D([], [], color=c, marker="o", ms=4) for c in shades]
    names = [f"{C:.2g} FLOPs" for C in through.table["flops"]]
    runs.legend(entries, names, frameon=False, fontsize=7, ncols=2)
    runs.set(xscale="log", xlabel=f"N: {found.columns['N']}", ylabel=f"{found.loss} (nats per token)")
    flops = through.table["flops"].to_numpy(float)
    line = np.geomspace(flops.min(), flops.max(), 40)
    for ax, key, i in ((sizes, "N", 0), (tokens, "tokens", 1)):
        for usable, face, what in ((True, "C0", "minimum"), (False, "white", "no minimum inside the runs")):
            at = through.table[through.table["usable"] == usable]
            if len(at):
                ax.plot(at["flops"], at[key], "o", color="C0", mfc=face, ms=5, label=what)
        if np.isfinite(through.power_laws).all():
            value, low, high = through.optimum(line)[key]
            ax.plot(line, value, color="C0", lw=1, label=f"exponent {through.power_laws[i, 0]:.3f}")
            ax.fill_between(line, low, high, alpha=0.2, lw=0)
        ax.set(xscale="log", yscale="log", xlabel="training FLOPs", ylabel="N*" if key == "N" else "D*, tokens")
        ax.legend(frameon=False, fontsize=8)
    return figure


def _surfaces(found: IsoFlop) -> Figure:
    n = len(found.surfaces)
    columns = min(n, 3)
    figure = Figure(figsize=(1.6 + 3.6 * columns, 0.4 + 3.3 * -(-n // columns)), layout="constrained")
    panels = figure.subplots(-(-n // columns), columns, squeeze=False).ravel()
    every = sorted({S for surface in found.surfaces.values() for S in surface.sparsities})
    shades = dict(zip(every, colormaps["viridis"](np.linspace(0, 0.88, len(every))), strict=True))
    for ax, (C, surface) in zip(panels, found.surfaces.items(), strict=False):
        for S in surface.sparsities:
            at = np.geomspace(*surface.sizes, 60)
            if found.runs is not None:
                axes, mine = found.runs.columns, found.of_budget(C)
                mine = mine[axes["S"][mine] == S]
                ax.plot(axes["N"][mine], found.runs.losses[mine], "o", ms=4, color=shades[S], alpha=0.8)
                at = np.geomspace(axes["N"][mine].min(), axes["N"][mine].max(), 60)
            ax.plot(at, surface.loss(at, S), color=shades[S], lw=1.2)
        ax.set(xscale="log", title=f"{C:.2g} FLOPs, degrees {surface.degrees}")
    for ax in panels[n:]:
        ax.remove()
    figure.supxlabel(f"N: {found.columns['N']}", fontsize=10)
    figure.supylabel(f"{found.loss} (nats per token)", fontsize=10)
    entries = [Line2D([], [], color=c, marker="o", ms=4) for c in shades.values()]
    figure.legend(entries, [f"S = {S:.3g}" for S in every], frameon=False, loc="outside right upper")
    return figure


def _logarithmic(ax, values: np.ndarray) -> None:
    """A logarithmic x axis with a tick at each value, where there are few, and without minor labels, which collide."""
    ax.set_xscale("log")
    ticks = np.unique(values)
    if len(ticks) <= 8:
        ax.set_xticks(ticks, [text.short(v) for v in ticks], fontsize=8)
        ax.minorticks_off()
    ax.xaxis.set_minor_formatter(NullFormatter())
