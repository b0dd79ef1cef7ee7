"""The figures of krajewski2024, of any table of losses: columns N, D, G, loss, size (what the model is called)."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from moe_jax.laws import Law
from moe_jax.laws.plots.figure_style import style
from moe_jax.report.panels import BLUE, add_legend, colour_by, loss_axis, row_of_panels, shared_labels, value_ticks
from moe_jax.report.papers.krajewski2024.needed import Needed
from moe_jax.text import short

_POINTS = 60  # of a curve


def figure_1(needed: Mapping[str, Needed], claims: Mapping[str, float]) -> Figure:
    """Loss of compute-optimal models, coloured by G; FLOPs that dense models and G = 1 need for the same loss.

    needed: by the origin of the law. claims: what the paper's text says."""
    with style():
        figure, (left, right) = row_of_panels(2, share=False)
        for (origin, found), line, marker in zip(needed.items(), ("-", "--"), ("o", "s"), strict=False):
            budgets = found.budgets
            left.plot(budgets, found.dense_loss, color="0.45", linestyle=line)
            left.plot(budgets, found.loss, color="0.75", linestyle=line, zorder=1)
            norm = LogNorm(4, 128)
            points = left.scatter(
                budgets, found.loss, c=found.granularity, norm=norm, cmap="viridis", s=22, marker=marker, zorder=3
            )
            right.plot(budgets, found.dense, color=BLUE, linestyle=line, label=f"dense, {origin}")
            right.plot(budgets, found.coarse, color="#c0562b", linestyle=line, label=f"G = 1, {origin}")
        bar = figure.colorbar(points, ax=left, label="G*", ticks=[4, 8, 16, 32, 64, 128], format="%d")
        bar.ax.minorticks_off()
        said = [claims["dense_needs_at_1e20"], claims["dense_needs_above_1e25"]]
        right.plot([1e20, 1e25], said, "x", color=BLUE, markersize=8, markeredgewidth=2, label="dense, the text")
        right.set_yscale("log")
        right.set_yticks([1, 2, 5, 10, 20, 40, 60], ["1", "2", "5", "10", "20", "40", "60"])
        right.minorticks_off()
        right.set_ylabel("FLOPs needed / optimal FLOPs")
        right.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
        left.set_ylabel("loss, nats per token (grey: dense)")
        for ax in (left, right):
            ax.set_xscale("log")
            ax.set_xlabel("training FLOPs")
        figure.set_size_inches(11.5, 3.6)
        return figure


def figure_3(runs: pd.DataFrame, law: Law) -> Figure:
    """(a) L − 3.12 against G; (b) loss against N at G = 4; (c) loss at the fewest tokens minus at four times these."""
    with style():
        figure, (a, b, c) = row_of_panels(3, share=False)
        shown = runs[(runs["size"] == "25M") & (runs["D"] == runs["D"].min())].sort_values("G")
        a.plot(shown["G"], shown["loss"] - 3.12, "o", color=BLUE)
        at = np.geomspace(1, shown["G"].max(), _POINTS)
        a.plot(at, law.loss_at({"N": shown["N"].iloc[0], "D": shown["D"].iloc[0], "G": at}) - 3.12, color=BLUE)
        a.set_xscale("log", base=2)
        a.set_yscale("log")
        a.set_yticks([0.03, 0.05, 0.1, 0.2], ["0.03", "0.05", "0.1", "0.2"])
        a.minorticks_off()
        value_ticks(a, shown["G"])
        a.set_xlabel("G")
        a.set_ylabel("L − 3.12, 64×25M, 16B tokens")

        _against_n(b, runs[runs["G"] == 4], law, 4)
        b.set_xlabel("N")
        b.set_ylabel("loss (nats per token), G = 4")
        b.legend(fontsize=7.5)

        low, high = np.sort(runs["D"].unique())[[0, 2]]
        colours = colour_by(runs["N"].unique())
        for (N, size), of_size in runs.groupby(["N", "size"]):
            wide = of_size.pivot(index="G", columns="D", values="loss")
            if low in wide and high in wide:
                gain = (wide[low] - wide[high]).dropna()
                c.plot(gain.index, gain, "o-", color=colours[N], linewidth=0.8, label=f"active N = {size}")
        c.axhline(law.loss_at({"N": 1e9, "D": low, "G": 1}) - law.loss_at({"N": 1e9, "D": high, "G": 1}), color="0.4")
        c.set_xscale("log", base=2)
        value_ticks(c, runs["G"])
        c.set_xlabel("G")
        c.set_ylabel(f"L({short(low)}) − L({short(high)})")
        c.legend(fontsize=7.5)
        figure.set_size_inches(11.5, 3.5)
        return figure


def loss_against_g(runs: pd.DataFrame, law: Law | None) -> Figure:
    """Loss against G: one panel per D, one curve per size."""
    with style():
        tokens = np.sort(runs["D"].unique())
        figure, axes = row_of_panels(len(tokens))
        colours = colour_by(runs["N"].unique())
        for ax, D in zip(axes, tokens, strict=True):
            for N, of_size in runs[runs["D"] == D].groupby("N"):
                line = of_size.groupby("G")["loss"].mean()
                ax.plot(of_size["G"], of_size["loss"], "o", color=colours[N], zorder=3)
                if law is None:
                    ax.plot(line.index, line, color=colours[N], linewidth=0.8)
                else:
                    at = np.geomspace(line.index.min(), line.index.max(), _POINTS)
                    ax.plot(at, law.loss_at({"N": N, "D": D, "G": at}), color=colours[N])
            ax.set_title(f"D = {short(D)}")
            ax.set_xscale("log", base=2)
            value_ticks(ax, runs["G"])
        loss_axis(axes)
        shared_labels(figure, "G", "loss (nats per token)")
        sizes = runs.drop_duplicates("N").sort_values("N")
        named = zip(sizes["size"], sizes["N"], strict=True)
        add_legend(figure, [(f"active N = {size}", _dot(colours[N])) for size, N in named])
        return figure


def loss_against_n(runs: pd.DataFrame, law: Law | None, granularities: Sequence[float]) -> Figure:
    """Loss against N: one panel per G, one curve per D."""
    with style():
        kept = [G for G in granularities if (runs["G"] == G).any()]
        figure, axes = row_of_panels(len(kept))
        for ax, G in zip(axes, kept, strict=True):
            _against_n(ax, runs[runs["G"] == G], law, G, every=runs["D"].unique())
            ax.set_title(f"G = {G:g}")
        loss_axis(axes)
        shared_labels(figure, "N", "loss (nats per token)")
        colours = colour_by(runs["D"].unique())
        add_legend(figure, [(f"D = {short(D)}", _dot(c)) for D, c in colours.items()])
        return figure


def _dot(colour) -> dict:
    return {"color": colour, "marker": "o", "linestyle": ""}


def _against_n(ax: Axes, runs: pd.DataFrame, law: Law | None, G: float, every: Sequence | None = None) -> None:
    colours = colour_by(runs["D"].unique() if every is None else every)
    for D, of_tokens in runs.groupby("D"):
        line = of_tokens.groupby("N")["loss"].mean()
        ax.plot(of_tokens["N"], of_tokens["loss"], "o", color=colours[D], zorder=3, label=f"D = {short(D)}")
        if law is None:
            ax.plot(line.index, line, color=colours[D], linewidth=0.8)
        else:
            at = np.geomspace(line.index.min(), line.index.max(), _POINTS)
            ax.plot(at, law.loss_at({"N": at, "D": D, "G": G}), color=colours[D])
    ax.set_xscale("log")
    value_ticks(ax, runs["N"])


def figure_7(runs: pd.DataFrame, panels: Sequence[Mapping]) -> Figure:
    """L minus a constant against G on logarithmic axes, with the power law through the dots."""
    with style():
        figure, axes = row_of_panels(len(panels), share=False)
        for ax, panel in zip(axes, panels, strict=True):
            shown = runs[(runs["size"] == panel["N_act"]) & np.isclose(runs["D"], panel["D"])].sort_values("G")
            above = shown["loss"] - panel["constant"]
            slope, level = np.polyfit(np.log(shown["G"]), np.log(above), 1)
            ax.plot(shown["G"], above, "o", color=BLUE)
            at = np.geomspace(1, shown["G"].max(), _POINTS)
            ax.plot(at, np.exp(level) * at**slope, color="0.5", label=f"G^{slope:.2f}")
            ax.set_xscale("log", base=2)
            ax.set_yscale("log")
            ticks = [0.02, 0.03, 0.05, 0.1, 0.2]
            ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
            ax.minorticks_off()
            value_ticks(ax, shown["G"])
            ax.set_title(f"64×{panel['N_act']}, {short(panel['D'])} tokens, L − {panel['constant']}")
            ax.legend()
        shared_labels(figure, "G", "loss − constant (nats)")
        return figure
