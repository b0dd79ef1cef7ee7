"""Figures 1 to 4 and 7 of abnar2025, drawn from coefficients."""

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from moe_jax import laws
from moe_jax.laws import Law
from moe_jax.laws.plots.figure_style import style
from moe_jax.report.panels import add_legend, colour_by, row_of_panels
from moe_jax.report.papers.abnar2025.budget import AT, PLAIN, SHARED, SPARSITIES, TIES, loss_at_budget, slice_minima
from moe_jax.text import short


def figure_1(law: Law) -> Figure:
    """Loss over (S, N) and (S, N_a) at one budget."""
    with style():
        figure, panels = row_of_panels(2, share=False)
        for ax, what in zip(panels, ("N", "N_a"), strict=True):
            x = np.linspace(0, 4.6, 120)  # −ln(1 − S)
            S, sizes = 1 - np.exp(-x), np.geomspace(1e8 if what == "N" else 3e7, 3e10 if what == "N" else 3e9, 160)
            N = sizes[:, None] if what == "N" else sizes[:, None] / (1 - S)
            losses = loss_at_budget(law, AT, N, S)
            drawn = ax.contourf(x, sizes, losses, levels=np.arange(2.2, 3.61, 0.1), cmap="viridis_r", extend="both")
            ax.plot(x, sizes[losses.argmin(0)], color="white")
            shown = (0, 0.5, 0.75, 0.9, 0.95, 0.98)
            ax.set_xticks([-math.log(1 - s) for s in shown], [f"{s:g}" for s in shown])
            ax.set_yscale("log")
            ax.grid(False)
            ax.set_xlabel("S (on a scale of −ln(1 − S))")
            ax.set_ylabel("N: all parameters" if what == "N" else "N_a: active parameters")
        figure.colorbar(drawn, ax=list(panels), label="loss (nats per token)")
        figure.set_size_inches(10, 3.6)
        return figure


def figure_2(law: Law) -> Figure:
    """Loss at one budget against S, N and N_a, with the others fixed."""
    with style():
        figure, (a, b, c) = row_of_panels(3)
        sizes, sparsities = np.geomspace(2e8, 2e10, 6), (0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
        by_size, by_sparsity = colour_by(sizes), colour_by(sparsities)
        for N in sizes:
            a.plot(SPARSITIES, loss_at_budget(law, AT, N, SPARSITIES), color=by_size[N], label=f"N = {short(N, 2)}")
        for S in sparsities:
            N = np.geomspace(1e8, 5e10, 100)
            losses = loss_at_budget(law, AT, N, S)
            b.plot(N, losses, color=by_sparsity[S], label=f"S = {S:g}")
            c.plot(N * (1 - S), losses, color=by_sparsity[S])
        a.set_xlabel("S")
        b.set_xlabel("N: all parameters")
        c.set_xlabel("N_a: active parameters")
        a.set_ylabel("loss (nats per token)")
        for ax in (b, c):
            ax.set_xscale("log")
        a.set_ylim(2.2, 3.6)
        a.legend(fontsize=7.5)
        b.legend(fontsize=7.5)
        figure.set_size_inches(11.5, 3.6)
        return figure


def figure_3(law: Law, printed: Mapping) -> Figure:
    """The best N, its N_a and its loss against S, for each budget and tie."""
    with style():
        figure, panels = row_of_panels(3, share=False)
        colours = colour_by(printed["budgets"])
        x = -np.log(1 - SPARSITIES)
        for C in printed["budgets"]:
            for tie, line in ((PLAIN, "-"), (SHARED, ":")):
                N, losses = slice_minima(law, C, tie)
                for ax, values in zip(panels, (N, TIES[tie](N, SPARSITIES), losses), strict=True):
                    ax.plot(x, values, color=colours[C], linestyle=line)
        for ax, name in zip(panels, ("N*", "N_a*", "loss*"), strict=True):
            shown = (0, 0.75, 0.9, 0.98)
            ax.set_xticks([-math.log(1 - s) for s in shown], [f"{s:g}" for s in shown])
            ax.set_xlabel("S")
            ax.set_ylabel(name)
            if name != "loss*":
                ax.set_yscale("log")
        add_legend(figure, [(f"{C:.0e} FLOPs", {"color": c}) for C, c in colours.items()])
        return figure


def figure_4(law: Law, printed: Mapping) -> Figure:
    """The best S against N, for each budget: one panel per tie."""
    with style():
        figure, panels = row_of_panels(2)
        colours, N = colour_by(printed["budgets"]), np.geomspace(1e8, 3e10, 120)
        for ax, tie in zip(panels, TIES, strict=True):
            for C in printed["budgets"]:
                best = SPARSITIES[loss_at_budget(law, C, N[:, None], SPARSITIES, tie).argmin(1)]
                ax.plot(N, best, color=colours[C])
            ax.set_xscale("log")
            ax.set_title(tie)
            ax.set_xlabel("N: all parameters")
        panels[0].set_ylabel("S* (the largest tried is .995)")
        add_legend(figure, [(f"{C:.0e} FLOPs", {"color": c}) for C, c in colours.items()])
        return figure


def figure_7(printed: Mapping) -> Figure:
    """FLOPs of appendix C over 6 N_a D against N_a, one curve per S."""
    shape = laws.Shape(aspect=64, ff_matrices=3, vocab_size=50_432, sequence_length=2048)
    d = np.geomspace(512, 8192, 60)
    with style():
        figure, (ax,) = row_of_panels(1)
        colours = colour_by(printed["sparsities"])
        for S in printed["sparsities"]:
            columns = shape.columns(d, np.full_like(d, 1 / (1 - S)), np.ones_like(d), np.ones_like(d))
            ratio = shape.flops_per_token("flops_abnar2025", columns) / shape.flops_per_token("flops_6nd", columns)
            ax.plot(columns["n_active"], ratio, color=colours[S], label=f"S = {S:g}")
        ax.axhline(1, color="0.4", linewidth=0.8)
        ax.set_xscale("log")
        ax.set_xlabel("N_a: active parameters, with embeddings and router")
        ax.set_ylabel("FLOPs / 6 N_a D")
        ax.legend(fontsize=7.5)
        return figure
