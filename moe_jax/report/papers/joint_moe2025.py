"""Joint MoE Scaling Laws (Ludziejewski et al. 2025): tables 1, 3 and 4, and the best E by budget.

The paper's losses were never published, so there is no third-party column."""

import functools
from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from moe_jax import laws
from moe_jax.laws.plots.figure_style import style
from moe_jax.report.drawing import Drawing
from moe_jax.report.elements import Paragraph, Table
from moe_jax.report.panels import colour_by, row_of_panels
from moe_jax.report.papers.item import Item, not_reproduced
from moe_jax.report.papers.refits import coefficient, error, fit_form
from moe_jax.report.papers.sources import Sources
from moe_jax.text import count, short

TITLE = "Joint MoE Scaling Laws, reproduced"
NEEDS = ("n_active", "tokens", "expansion_rate")  # columns of our runs
_EXPERTS = (1, 2, 4, 8, 16, 32)
_FAR = 1e300  # where a term of the law vanishes


def reproduce(sources: Sources) -> tuple[list[str], Iterator[Item]]:
    """(sentences, items)."""
    rows = _optima(sources.printed)
    miss = max(abs(v / row[k] - 1) for row, values in rows for k, v in values.items())
    said = [
        f"The printed coefficients give the compute-optimal sizes of Table 1 to within {miss:.1%}.",
        "N is active, with embeddings and unembedding; experts are chosen by top-1 and G = 1.",
        "How the paper fitted them is not known: its text leaves the objective open, so our runs are fitted with this"
        " program's default one.",
    ]
    return said, _items(sources, rows)


def _items(sources: Sources, rows: list) -> Iterator[Item]:
    printed, law = sources.printed, laws.published("joint_moe2025")
    cells = [
        [f"{r['E']}", short(r["n_active"]), short(v["n_active"]), short(r["tokens"]), short(v["tokens"])]
        for r, v in rows
    ]
    heads = (">E", ">N active, printed", ">computed", ">D, printed", ">computed")
    yield Item(f"Table 1: compute-optimal at {printed['table1_flops']:.0e} FLOPs", [Table(heads, cells)])
    yield _coefficients(sources)
    yield _table_4(printed, law)
    caption = "Left: loss of compute-optimal models minus that of the dense one. Right: their tokens per parameter."
    draw = functools.partial(_figure_of_experts, law)
    yield Item("The effect of E under the law", [Drawing("experts", caption, "loss and tokens by E", draw)])
    yield not_reproduced("The paper's losses are not public: its figures of runs are left out.")


def _optima(printed: dict) -> list[tuple[dict, dict]]:
    """(printed row, computed n_active and tokens) of Table 1."""
    law, found = laws.published("joint_moe2025"), []
    for row in printed["table1"]:
        choices = laws.Choices(expansion_rates=[row["E"]])
        values = laws.Planner(law, choices=choices).best(printed["table1_flops"]).values
        found.append((row, {k: values[k] for k in ("n_active", "tokens")}))
    return found


def _coefficients(sources: Sources) -> Item:
    law, ours = laws.published("joint_moe2025"), fit_form("joint_moe2025", sources.ours)
    rows = [[name, f"{value:g}", coefficient(ours, name)] for name, value in law.coefficients.items()]
    rmse = sources.printed["rmse"]
    rows.append(["RMSE, fitted", f"{rmse['train']:g}", error(ours)])
    rows.append(["RMSE, held out", f"{rmse['held_out']:g}", "–"])
    runs = count(ours.law.data.n_fit, "run") if isinstance(ours, laws.Fit) else "none"
    reason = [Paragraph(f"Our runs: {ours}.")] if isinstance(ours, str) else []
    return Item("Table 3: coefficients", [Table(("", ">printed", f">our runs ({runs})"), rows), *reason])


def _table_4(printed: dict, law: laws.Law) -> Item:
    """At one E the law is m N^μ + n D^ν + c. Both terms are read off the declared formula."""
    c, rows = law.coefficients["c"], []

    def term(symbol: str, other: str, E: float) -> tuple[float, float]:
        sizes = np.array([1e8, 1e10])
        above = np.log(law.loss_at({symbol: sizes, other: _FAR, "E": E}) - c)
        exponent = float((above[1] - above[0]) / np.log(sizes[1] / sizes[0]))
        return float(np.exp(above[0]) / sizes[0] ** exponent), exponent

    for row in printed["table4"]:
        (m, mu), (n, nu) = term("N", "D", row["E"]), term("D", "N", row["E"])
        computed = {"m": m, "mu": mu, "n": n, "nu": nu}
        rows.append([f"{row['E']}", *(f"{v:.4g}" for k in computed for v in (row[k], computed[k]))])
    heads = [">E"]
    for name in ("m", "μ", "n", "ν"):
        heads += [f">{name}, printed", ">from Table 3"]
    return Item("Table 4: the law at one E", [Table(heads, rows)])


def _figure_of_experts(law: laws.Law) -> Figure:
    budgets = np.logspace(18, 24, 13)
    with style():
        figure, (left, right) = row_of_panels(2, share=False)
        colours = colour_by(_EXPERTS)
        planners = {E: laws.Planner(law, choices=laws.Choices(expansion_rates=[E])) for E in _EXPERTS}
        plans = {E: [planner.best(C) for C in budgets] for E, planner in planners.items()}
        dense = np.array([p.values["loss"] for p in plans[1]])
        for E, of_e in plans.items():
            left.plot(budgets, [p.values["loss"] for p in of_e] - dense, color=colours[E], label=f"E = {E}")
            right.plot(budgets, [p.values["tokens"] / p.values["n_active"] for p in of_e], color=colours[E])
        left.set_ylabel("loss − loss of dense (nats)")
        right.set_ylabel("tokens per active parameter")
        right.set_yscale("log")
        left.legend()
        for ax in (left, right):
            ax.set_xscale("log")
            ax.set_xlabel("training FLOPs")
        return figure
