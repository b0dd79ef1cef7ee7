"""Parameters vs FLOPs (Abnar et al. 2025): table 3 and figures 1 to 4, 6 and 7, as far as coefficients determine them.

The paper's losses are not public. Its surfaces were fitted to runs; here they follow from its parametric law (Eq. 6).
The law needs D, and the D that a budget buys depends on how active parameters N_a follow from (N, S).

budget: the law for models that spend a whole budget · figures: figures 1 to 4 and 7"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping

import pandas as pd
from matplotlib.figure import Figure

from moe_jax import laws
from moe_jax.errors import UserError
from moe_jax.laws import Law
from moe_jax.report import downstream
from moe_jax.report.drawing import Drawing
from moe_jax.report.elements import Bullets, Paragraph, Table
from moe_jax.report.figures import fit_against_data
from moe_jax.report.papers.abnar2025 import figures
from moe_jax.report.papers.abnar2025.budget import AT, PLAIN, SHARED, SPARSITIES, TIES, slice_minima
from moe_jax.report.papers.item import Item, not_reproduced
from moe_jax.report.papers.refits import coefficient, error, fit_form
from moe_jax.report.papers.sources import Sources
from moe_jax.text import count, short

TITLE = "Parameters vs FLOPs: optimal sparsity, reproduced"
NEEDS = ("n_total", "tokens", "sparsity", "flops_abnar2025")  # columns of our runs
_POINTS = ((1e9, 2e10, 0), (1e9, 2e10, 0.5), (1e9, 2e10, 0.9), (1e9, 2e10, 0.98), (1e10, 2e10, 0.95), (3e8, 1e10, 0),
           (5e9, 5e10, 0.75))  # (N, D, S)  # fmt: skip


def reproduce(sources: Sources) -> tuple[list[str], Iterator[Item]]:
    """(sentences, items)."""
    law = laws.published("abnar2025")
    best = {tie: SPARSITIES[slice_minima(law, AT, tie)[1].argmin()] for tie in TIES}
    said = [
        f"At {AT:.0e} FLOPs and free N the law's loss falls with sparsity up to {best[PLAIN]:.3f}, the largest tried,"
        f" if {PLAIN}. If a quarter of the parameters is always active, {SHARED}, it has an optimum at S = "
        f"{best[SHARED]:.2f}. The best sparsity under the law thus depends on how N_a is tied to (N, S).",
        "At fixed N the best sparsity falls as the budget grows (figure 4), as the paper's sections 3 and D.2 say and "
        "its section 6 contradicts.",
    ]
    ours = fit_form("abnar2025", sources.ours)
    if isinstance(ours, laws.Fit):
        said.append(f"Our {count(ours.law.data.n_fit, 'run')}: RMSE of this law {error(ours)} nats.")
    return said, _items(sources, law, ours)


def _items(sources: Sources, law: Law, ours: laws.Fit | str | None) -> Iterator[Item]:
    printed, draw = sources.printed, functools.partial
    yield _table_3(printed, law, ours)
    yield _figure("figure1", "Figure 1: loss over sparsity and size", draw(figures.figure_1, law),
                  f"At {AT:.0e} FLOPs, by the law with {PLAIN}; white: the best N of each S.")  # fmt: skip
    yield _figure("figure2", "Figure 2: slices at one budget", draw(figures.figure_2, law),
                  f"At {AT:.0e} FLOPs, {PLAIN}.")  # fmt: skip
    yield _figure("figure3", "Figure 3: the best size by sparsity", draw(figures.figure_3, law, printed),
                  f"Free N, five budgets, {PLAIN}; dotted: {SHARED}.")  # fmt: skip
    yield _figure("figure4", "Figure 4: the best sparsity by size", draw(figures.figure_4, law, printed),
                  f"Fixed N. Left {PLAIN}, right {SHARED}.")  # fmt: skip
    yield _figure_6(printed, ours)
    yield _figure("figure7", "Figure 7: FLOPs of appendix C against 6 N_a D", draw(figures.figure_7, printed),
                  "Shapes with d = 64 · layers, gated experts, sequences of 2,048, V = 50,432, top-1, G = 1. N_a has "
                  "two matrices of V · d and only one costs FLOPs, hence values below 1 for small models.")  # fmt: skip
    if sources.ours is not None:
        yield _figure_8(sources)
        yield _figure_5(sources.ours)
    yield not_reproduced(
        "No losses and no scores of the paper are public: figures 1, 5, 6 and 8 to 12 from its runs are left out."
    )


def _figure_5(ours: pd.DataFrame) -> Item:
    """The question of figures 5 and 10, over our runs."""
    title, names = "Figures 5 and 10: tasks at equal loss", downstream.tasks(ours.columns)
    if not names:
        return Item(title, [Paragraph("No run of ours was scored on a task (moe-jax evaluate --tasks).")])
    rows = ours.to_dict("records")
    caption = "Our runs: bits per byte of the right answers against the held-out loss. The paper plots its error rates."
    draw = functools.partial(downstream.against_loss, rows, names)
    found = [effect.sentence for effect in downstream.effects(rows, names)]
    return Item(
        title,
        [
            Bullets(found or ["Too few of our runs differ in loss and sparsity to tell what sparsity does."]),
            Drawing("figure5", caption, "downstream scores against loss", draw),
        ],
    )


def _figure(name: str, title: str, draw: Callable[[], Figure], caption: str) -> Item:
    return Item(title, [Drawing(name, caption, title.partition(": ")[2], draw)])


def _table_3(printed: Mapping, law: Law, ours: laws.Fit | str | None) -> Item:
    errors = printed["errors"]
    rows = [[name, f"{value:g}", coefficient(ours, name)] for name, value in law.coefficients.items()]
    rows.append(["RMSE, nats", f"{math.sqrt(errors['mse_fit']):.4f}", error(ours)])
    rows.append(["RMSE at S = .98, held out", f"{math.sqrt(errors['mse_holdout']):.4f}", "–"])
    runs = count(ours.law.data.n_fit, "run") if isinstance(ours, laws.Fit) else "none"
    points = [[short(N), short(D), f"{S:g}", f"{law.loss_at({'N': N, 'D': D, 'S': S}):.5f}"] for N, D, S in _POINTS]
    caption = "Printed errors are secondary: the roots of printed MSEs."
    content = [
        Table(("", ">printed", f">our runs ({runs})"), rows, caption=caption),
        *([Paragraph(f"Our runs: {ours}.")] if isinstance(ours, str) else []),
        Table((">N", ">D", ">S", ">loss"), points, caption="Losses that these coefficients give, nats per token."),
    ]
    return Item("Table 3: coefficients", content)


def _figure_6(printed: Mapping, ours: laws.Fit | str | None) -> Item:
    e = printed["errors"]
    said = (
        f"Printed (secondary): MSE {e['mse_fit']:g} on the fitted runs and {e['mse_holdout']:g} at S = .98, held out;"
        f" R² {e['r2_fit']:.0%} and {e['r2_holdout']:.0%}. The paper's runs are not public; ours are drawn where there"
        " are any."
    )
    content = [Paragraph(said)]
    if isinstance(ours, laws.Fit):
        draw = functools.partial(fit_against_data, ours)
        content.append(Drawing("figure6_ours", "Our runs: fit against data.", "fit against data", draw))
    return Item("Figure 6: the law against the runs", content)


def _figure_8(sources: Sources) -> Item:
    title = "Figure 8, our runs: a surface for each budget"
    try:
        found = laws.isoflop.fit(sources.ours, "surface")
    except UserError as e:
        return Item(title, [Paragraph(f"Our runs: {e}.")])
    caption = f"{sources.name}: runs and the surface through them, one curve per sparsity."
    draw = functools.partial(laws.plots.isoflop, found)
    return Item(title, [Drawing("figure8_ours", caption, "loss surfaces by budget", draw)])
