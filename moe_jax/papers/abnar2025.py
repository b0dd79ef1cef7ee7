"""Parameters vs FLOPs (Abnar et al. 2025): table 3 and figures 1 to 4, 6 and 7, as far as coefficients carry them.

Its losses are not public. The paper's surfaces were fitted to runs; here they are what its parametric law (Eq. 6)
says. It needs D, and what D a budget buys depends on how active parameters N_a follow from (N, S)."""

import math
from collections.abc import Callable, Iterator

import numpy as np
from matplotlib.figure import Figure

from moe_jax import laws
from moe_jax.errors import UserError
from moe_jax.figures import add_legend, colour_by, row_of_panels, style
from moe_jax.html import bullets, h, table
from moe_jax.laws import Law
from moe_jax.papers.item import Drawing, Item
from moe_jax.papers.sources import Sources
from moe_jax.tables import count, short

TITLE = "Parameters vs FLOPs: optimal sparsity, reproduced"
NEEDS = ("n_total", "tokens", "sparsity", "flops_abnar2025")  # columns of our runs
_AT = 1e20  # the budget of figures 1 and 2
_FINE = 1 - np.logspace(0, -2.3, 400)  # sparsities 0 … .995 at which an optimum is looked for
_SIZES = np.geomspace(5e7, 1e12, 3001)
_VALUES = ((1e9, 2e10, 0), (1e9, 2e10, 0.5), (1e9, 2e10, 0.9), (1e9, 2e10, 0.98), (1e10, 2e10, 0.95), (3e8, 1e10, 0),
           (5e9, 5e10, 0.75))  # fmt: skip

Tie = Callable[[np.ndarray, np.ndarray], np.ndarray]
TIES: dict[str, Tie] = {  # active parameters of (N, S)
    "N_a = N(1 − S)": lambda N, S: N * (1 - S),
    "N_a = N(¼ + ¾(1 − S))": lambda N, S: N * (0.25 + 0.75 * (1 - S)),
}
_PLAIN, _SHARED = TIES


def loss_at_budget(law: Law, flops: float, N, S, tie: str = _PLAIN) -> np.ndarray:
    """The law's loss of a model of size N and sparsity S that spends a whole budget, D = C / 6 N_a."""
    N, S = np.broadcast_arrays(np.asarray(N, float), np.asarray(S, float))
    return law.loss_at({"N": N, "S": S, "D": flops / (6 * TIES[tie](N, S))})


def reproduce(sources: Sources) -> tuple[list[str], Iterator[Item]]:
    """(sentences, items)."""
    law = laws.published("abnar2025")
    best = {tie: _FINE[_slice_minima(law, _AT, tie)[1].argmin()] for tie in TIES}
    said = [
        f"At {_AT:.0e} FLOPs and free N the law's loss falls with sparsity up to {best[_PLAIN]:.3f}, the largest tried,"
        f" if {_PLAIN}. If a quarter of the parameters is always active, {_SHARED}, it has an optimum at S = "
        f"{best[_SHARED]:.2f}: what the law says of sparsity depends on how N_a is tied to (N, S).",
        "At fixed N the best sparsity falls as the budget grows (figure 4), as the paper's sections 3 and D.2 say and "
        "its section 6 contradicts.",
    ]
    ours, trouble = _our_law(sources)
    if ours is not None:
        said.append(f"Our {count(ours.law.n_fit, 'run')}: RMSE of this law {ours.law.errors['rmse_fit']:.4f} nats.")
    return said, _items(sources, law, ours, trouble)


def _items(sources: Sources, law: Law, ours: laws.Fit | None, trouble: str | None) -> Iterator[Item]:
    printed = sources.printed
    yield _table_3(printed, law, ours, trouble)
    yield _item("Figure 1: loss over sparsity and size", "figure1", _figure_1(law),
                f"At {_AT:.0e} FLOPs, by the law with {_PLAIN}; white: the best N of each S.")  # fmt: skip
    yield _item("Figure 2: slices at one budget", "figure2", _figure_2(law), f"At {_AT:.0e} FLOPs, {_PLAIN}.")
    yield _item("Figure 3: the best size by sparsity", "figure3", _figure_3(law, printed),
                f"Free N, five budgets, {_PLAIN}; dotted: {_SHARED}.")  # fmt: skip
    yield _item("Figure 4: the best sparsity by size", "figure4", _figure_4(law, printed),
                f"Fixed N. Left {_PLAIN}, right {_SHARED}.")  # fmt: skip
    yield _figure_6(printed, ours)
    yield _item("Figure 7: FLOPs of appendix C against 6 N_a D", "figure7", _figure_7(printed),
                "Shapes with d = 64 · blocks, gated experts, sequences of 2,048, V = 50,432, top-1, G = 1. N_a has two "
                "matrices of V · d, of which one costs FLOPs: hence below 1 for small models.")  # fmt: skip
    if sources.ours is not None:
        yield _surfaces(sources)
    missing = [
        "No losses of the paper are public: figures 1, 6 and 8 to 12 from its runs, and figure 5 (downstream tasks),"
        " are left out.",
    ]
    yield Item("What cannot be had", [bullets(missing)])


def _item(title: str, name: str, figure: Figure, caption: str) -> Item:
    return Item(title, [Drawing(name, caption, figure)])


def _our_law(sources: Sources) -> tuple[laws.Fit | None, str | None]:
    if sources.ours is None:
        return None, None
    try:
        return laws.fit(sources.ours, "abnar2025", resampling=laws.Resampling(samples=0)), None
    except UserError as e:
        return None, f"Our runs: {e}."


def _table_3(printed: dict, law: Law, ours: laws.Fit | None, trouble: str | None) -> Item:
    fitted = ours.law.coefficients if ours is not None else {}
    rows = [[k, f"{v:g}", f"{fitted[k]:.4g}" if fitted else "–"] for k, v in law.coefficients.items()]
    rows.append(["RMSE, nats", f"{math.sqrt(printed['errors']['mse_fit']):.4f}", _of(ours, "rmse_fit")])
    rows.append(["RMSE at S = .98, held out", f"{math.sqrt(printed['errors']['mse_holdout']):.4f}", "–"])
    runs = "none" if ours is None else count(ours.law.n_fit, "run")
    values = [[short(N), short(D), f"{S:g}", f"{law.loss_at({'N': N, 'D': D, 'S': S}):.5f}"] for N, D, S in _VALUES]
    return Item(
        "Table 3: coefficients",
        [
            table(
                ("", ">printed", f">our runs ({runs})"), rows, caption="Errors: secondary (the root of printed MSEs)."
            ),
            h("p", trouble) if trouble else None,
            table((">N", ">D", ">S", ">loss"), values, caption="What these coefficients give at single points."),
        ],
    )


def _of(ours: laws.Fit | None, error: str) -> str:
    return "–" if ours is None else f"{ours.law.errors[error]:.4f}"


def _slice_minima(law: Law, flops: float, tie: str) -> tuple[np.ndarray, np.ndarray]:
    """(N*, loss*) of each S of _FINE, N free."""
    losses = loss_at_budget(law, flops, _SIZES[:, None], _FINE, tie)
    best = losses.argmin(0)
    return _SIZES[best], losses.min(0)


def _figure_1(law: Law) -> Figure:
    with style():
        figure, panels = row_of_panels(2, share=False)
        for ax, what in zip(panels, ("N", "N_a"), strict=True):
            x = np.linspace(0, 4.6, 120)  # −ln(1 − S)
            S, sizes = 1 - np.exp(-x), np.geomspace(1e8 if what == "N" else 3e7, 3e10 if what == "N" else 3e9, 160)
            N = sizes[:, None] if what == "N" else sizes[:, None] / (1 - S)
            losses = loss_at_budget(law, _AT, N, S)
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


def _figure_2(law: Law) -> Figure:
    with style():
        figure, (a, b, c) = row_of_panels(3)
        sizes, sparsities = np.geomspace(2e8, 2e10, 6), (0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98)
        by_size, by_sparsity = colour_by(sizes), colour_by(sparsities)
        for N in sizes:
            a.plot(_FINE, loss_at_budget(law, _AT, N, _FINE), color=by_size[N], label=f"N = {short(N, 2)}")
        for S in sparsities:
            N = np.geomspace(1e8, 5e10, 100)
            losses = loss_at_budget(law, _AT, N, S)
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


def _figure_3(law: Law, printed: dict) -> Figure:
    with style():
        figure, panels = row_of_panels(3, share=False)
        colours = colour_by(printed["budgets"])
        x = -np.log(1 - _FINE)
        for C in printed["budgets"]:
            for tie, line in ((_PLAIN, "-"), (_SHARED, ":")):
                N, losses = _slice_minima(law, C, tie)
                for ax, values in zip(panels, (N, TIES[tie](N, _FINE), losses), strict=True):
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


def _figure_4(law: Law, printed: dict) -> Figure:
    with style():
        figure, panels = row_of_panels(2)
        colours, N = colour_by(printed["budgets"]), np.geomspace(1e8, 3e10, 120)
        for ax, tie in zip(panels, TIES, strict=True):
            for C in printed["budgets"]:
                best = _FINE[loss_at_budget(law, C, N[:, None], _FINE, tie).argmin(1)]
                ax.plot(N, best, color=colours[C])
            ax.set_xscale("log")
            ax.set_title(tie)
            ax.set_xlabel("N: all parameters")
        panels[0].set_ylabel("S* (the largest tried is .995)")
        add_legend(figure, [(f"{C:.0e} FLOPs", {"color": c}) for C, c in colours.items()])
        return figure


def _figure_6(printed: dict, ours: laws.Fit | None) -> Item:
    e = printed["errors"]
    said = (
        f"Printed (secondary): MSE {e['mse_fit']:g} on the runs fitted and {e['mse_holdout']:g} at S = .98, held out;"
        f" R² {e['r2_fit']:.0%} and {e['r2_holdout']:.0%}. Its runs are not public; our own are drawn where there"
        " are."
    )
    content = [h("p", said)]
    if ours is not None:
        content.append(Drawing("figure6_ours", "Our runs: fit against data.", laws.plots.fit(ours)))
    return Item("Figure 6: the law against the runs", content)


def _figure_7(printed: dict) -> Figure:
    shape = laws.Shape(aspect=64, ff_matrices=3, vocabulary_size=50_432, sequence_length=2048)
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


def _surfaces(sources: Sources) -> Item:
    title = "Figure 8, our runs: a surface for each budget"
    try:
        found = laws.isoflop.fit(sources.ours, "isoflop_surface")
    except UserError as e:
        return Item(title, [h("p", f"Our runs: {e}.")])
    caption = f"{sources.name}: runs and the surface through them, a curve a sparsity."
    return Item(title, [Drawing("figure8_ours", caption, laws.plots.isoflop(found))])
