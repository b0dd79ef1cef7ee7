"""Figure 1 and tables 2, 6 and 9: compute-optimal models, and what dense models and G = 1 need for the same loss."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from moe_jax import laws
from moe_jax.laws import Law
from moe_jax.report.drawing import Drawing
from moe_jax.report.elements import Table
from moe_jax.report.papers.item import Item
from moe_jax.report.papers.krajewski2024 import figures
from moe_jax.report.papers.krajewski2024.fits import Fits
from moe_jax.report.papers.krajewski2024.needed import BUDGETS, Needed
from moe_jax.text import short


def figure_1(printed: Mapping, needed: Mapping[str, Needed]) -> Item:
    """The figure, and its numbers as a table."""
    claims = printed["claims"]
    rows = []
    for i in range(0, len(BUDGETS), 2):
        claim = {20: f"{claims['dense_needs_at_1e20']}×", 25: f"above {claims['dense_needs_above_1e25']}×"}
        row = [f"{BUDGETS[i]:.0e}", claim.get(round(np.log10(BUDGETS[i])), "–")]
        for found in needed.values():
            row += [f"{found.granularity[i]:g}", f"{found.dense[i]:.1f}×", f"{found.coarse[i]:.2f}×"]
        rows.append(row)
    headings = [">FLOPs", ">dense needs, the text"]
    for origin in needed:
        headings += [f">G*, {origin}", ">dense needs", ">G = 1 needs"]
    caption = (
        "Left: loss of compute-optimal models. Right: FLOPs that dense models, and Mixtures of Experts with G = 1, need"
        " for the same loss, in units of the optimal ones; crosses: what the paper's text says. The refits of the "
        "Mixtures of Experts lie on the paper's own curves."
    )
    draw = functools.partial(figures.figure_1, needed, claims)
    return Item(
        "Figure 1: compute-optimal loss, and what dense and G = 1 need for it",
        [Drawing("figure1", caption, "compute-optimal loss and FLOPs needed", draw), Table(headings, rows)],
    )


def table_2(printed: Mapping, fits: Fits) -> Item:
    """Compute-optimal models of the paper's sizes."""
    paper, rows = laws.published("krajewski2024"), []
    rounded = dataclasses.replace(paper, coefficients={k: printed["table1"]["moe_E64"][k] for k in paper.coefficients})
    origins = {"unrounded": paper, "Table 1, as printed": rounded}
    if fits.third_party is not None:
        origins["third-party"] = dataclasses.replace(fits.third_party.law, samples={})
    for row in printed["table2"]:
        size = f"64×{short(row['N_act'])}"
        rows.append([size, "printed", short(row["D"], 4), f"{row['G']}", f"{row['F']:.3g}", f"{row['L']:.3f}"])
        for origin, law in origins.items():
            v = laws.Planner(law, choices=laws.Choices(expansion_rates=[64])).of_size(row["N_act"]).values
            cells = [short(v["tokens"], 4), f"{v['granularity']:g}", f"{v['flops']:.3g}", f"{v['loss']:.3f}"]
            rows.append(["", origin, *cells])
    caption = "The budget at which each size is optimal, by the paper's FLOPs and d = 64·n_layers."
    table = Table(("size", "from", ">D", ">G", ">FLOPs", ">loss"), rows, caption=caption)
    return Item("Table 2: compute-optimal models", [table])


def table_6(printed: Mapping, fits: Fits) -> Item:
    """Intervals of the optimal D and G, E = 64."""
    law = None if fits.third_party is None else fits.third_party.law
    rows = _optimal_sizes(printed["table6"], law, 64)
    what = "third-party, optimum (10% to 90%)"
    headings = ("size", ">D, printed", ">G, printed", f">D, {what}", f">G, {what}")
    return Item("Table 6: intervals of the optimum, E = 64", [Table(headings, rows)])


def table_9(printed: Mapping) -> Item:
    """The optimal D and G for E = 16, from coefficients: there are no losses."""
    rows = _optimal_sizes(printed["table9"], laws.published("krajewski2024", "E=16, Table 8"), 16)
    what = "the coefficients of Table 8"
    headings = ("size", ">D, printed", ">G, printed", f">D, {what}", f">G, {what}")
    caption = "No losses of E = 16 are public, so there is nothing to resample: points only."
    return Item("Table 9: intervals of the optimum, E = 16", [Table(headings, rows, caption=caption)])


def _optimal_sizes(printed: Mapping, law: Law | None, E: int) -> list[list[str]]:
    rows = []
    planner = None if law is None else laws.Planner(law, choices=laws.Choices(expansion_rates=[E]))
    for size, band in printed.items():
        cells = [f"{E}×{size}", _interval(band["D"]), _interval(band["G"])]
        if planner is None:
            rows.append([*cells, "–", "–"])
            continue
        plan = planner.of_size(_number(size))
        for key in ("tokens", "granularity"):
            value = short(plan.values[key])
            cells.append(value + (f" ({_interval(plan.intervals[key])})" if plan.intervals else ""))
        rows.append(cells)
    return rows


def _interval(band: Sequence[float]) -> str:
    return f"{short(band[0], 4)}–{short(band[1], 4)}"


def _number(text: str) -> float:
    """The number that a short form stands for: 1e9 for 1B."""
    return float(text[:-1]) * {"M": 1e6, "B": 1e9, "T": 1e12}[text[-1]]
