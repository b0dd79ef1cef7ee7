"""Iso-FLOP fits: the curve of each budget and the power laws through the minima, or the surfaces."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from moe_jax.laws.isoflop.fits import IsoFlop
from moe_jax.laws.plots import canvas
from moe_jax.text import short

_ENTRIES = 12  # of a legend


@canvas.drawn
def isoflop(found: IsoFlop) -> Figure:
    """The curve of each budget and the power law through the minima; or the surfaces, a panel a budget.

    found: from laws.isoflop.fit, with its runs; a fit that was read from a file is drawn without runs."""
    return _minima(found) if found.minima is not None else _surfaces(found)


def _minima(found: IsoFlop) -> Figure:
    through = found.minima
    figure, (left, sizes, tokens) = canvas.panels(3, width=4.4, height=3.4)
    if found.method == "envelope":
        _draw_envelope(left, found)
    else:
        _draw_curves(left, found)
    left.set_ylabel(f"{'training loss' if found.curves else found.loss} (nats per token)")
    flops = through.table["flops"].to_numpy(float)
    line = np.geomspace(flops.min(), flops.max(), 40)
    for ax, key, i in ((sizes, "N", 0), (tokens, "tokens", 1)):
        for usable, face, what in ((True, canvas.BLUE, "minimum"), (False, "white", "no minimum inside the runs")):
            at = through.table[(through.table["usable"] == usable) & np.isfinite(through.table[key])]
            if len(at):
                ax.plot(at["flops"], at[key], "o", color=canvas.BLUE, mfc=face, label=what)
            if len(at) and key == "N" and usable and np.isfinite(at["N_low"]).any():
                ax.vlines(at["flops"], at["N_low"], at["N_high"], color=canvas.BLUE, lw=1)
        if np.isfinite(through.power_laws).all():
            value, low, high = through.optimum(line)[key]
            said = f"{'N*' if key == 'N' else 'D*'} ∝ C^{through.power_laws[i, 0]:.3f}"
            ax.plot(line, value, color=canvas.ORANGE, label=said)
            ax.fill_between(line, low, high, color=canvas.ORANGE, alpha=0.25, lw=0)
        ax.set(xscale="log", yscale="log", xlabel=f"{canvas.FLOPS} ({found.columns['C']})")
        ax.set_ylabel(f"N* ({found.columns['N']})" if key == "N" else f"D* ({found.columns['D']})")
        canvas.decades(ax.xaxis, flops=True)
        canvas.decades(ax.yaxis)
        ax.legend()
    return figure


def _draw_curves(ax: Axes, found: IsoFlop) -> None:
    table = found.minima.table
    shades = canvas.shades(len(table))
    for (_, row), shade in zip(table.iterrows(), shades, strict=True):
        if found.runs is not None:
            mine = found.of_budget(row["flops"])
            ax.plot(found.runs.columns["N"][mine], found.runs.losses[mine], "o", ms=4, color=shade, alpha=0.8)
        if row["flops"] in found.minima.curves:
            ax.plot(*found.minima.curves[row["flops"]], color=shade, lw=1.2)
        if row["usable"]:
            ax.plot(row["N"], row["loss"], "*", ms=10, color=shade, mec="black", mew=0.5)
    step = -(-len(table) // _ENTRIES)
    entries = [Line2D([], [], color=c, marker="o", ms=4) for c in shades[::step]]
    names = [f"{C:.2g} FLOPs".replace("e+", "e") for C in table["flops"][::step]]
    ax.legend(entries, names, fontsize=7, ncols=2)
    ax.set(xscale="log", xlabel=f"N ({found.columns['N']})", title=f"method: {found.method}")
    canvas.decades(ax.xaxis)


def _draw_envelope(ax: Axes, found: IsoFlop) -> None:
    table = found.minima.table
    curves = sorted(found.curves, key=lambda c: c.N)
    sizes = sorted({c.N for c in curves})
    colours = dict(zip(sizes, canvas.shades(len(sizes)), strict=True))
    for curve in curves:
        ax.plot(curve.tokens * curve.flops_per_token, curve.losses, color=colours[curve.N], lw=0.6, alpha=0.8)
    if not curves and found.runs is not None:
        ax.plot(found.runs.columns["C"], found.runs.losses, "o", ms=4, color="0.7", label="runs")
    ax.plot(
        table["flops"], table["loss"], color=canvas.ORANGE, lw=2, label="envelope", marker="o" if not curves else ""
    )
    step = -(-max(len(sizes), 1) // _ENTRIES)
    handles, names = ax.get_legend_handles_labels()
    handles += [Line2D([], [], color=colours[N], lw=1.5) for N in sizes[::step]]
    ax.legend(handles, [*names, *(f"N = {short(N)}" for N in sizes[::step])], fontsize=7, ncols=2)
    low, high = table["loss"].min(), table["loss"].max()
    ax.set(xscale="log", xlabel=f"{canvas.FLOPS} ({found.columns['C']})", title="method: envelope")
    ax.set_ylim(low - 0.03 * (high - low + 0.1), high + 0.1 * (high - low + 0.1))
    canvas.decades(ax.xaxis, flops=True)


def _surfaces(found: IsoFlop) -> Figure:
    figure, panels = canvas.panels(len(found.surfaces), width=4.1, height=3.3)
    every = sorted({S for surface in found.surfaces.values() for S in surface.sparsities})
    shades = dict(zip(every, canvas.shades(len(every)), strict=True))
    for ax, (C, surface) in zip(panels, found.surfaces.items(), strict=True):
        for S in surface.sparsities:
            at = np.geomspace(*surface.sizes, 60)
            if found.runs is not None:
                axes, mine = found.runs.columns, found.of_budget(C)
                mine = mine[axes["S"][mine] == S]
                ax.plot(axes["N"][mine], found.runs.losses[mine], "o", ms=4, color=shades[S], alpha=0.8)
                at = np.geomspace(axes["N"][mine].min(), axes["N"][mine].max(), 60)
            ax.plot(at, surface.loss(at, S), color=shades[S], lw=1.2)
        ax.set(xscale="log", title=f"{C:.2g} FLOPs, degrees {surface.degrees}".replace("e+", "e"))
        canvas.decades(ax.xaxis)
    figure.supxlabel(f"N: {found.columns['N']}", fontsize=10)
    figure.supylabel(f"{found.loss} (nats per token)", fontsize=10)
    entries = [Line2D([], [], color=c, marker="o", ms=4) for c in shades.values()]
    figure.legend(entries, [f"S = {S:.3g}" for S in every], loc="outside right upper")
    return figure
