"""Scaling Fine-Grained MoE Beyond 50B Parameters (Krajewski et al. 2025): its comparison of G = 1 with G = 8.

Only the abstract is at hand. Its numbers come from one summary and are marked secondary; shapes are derived."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from moe_jax import configfile, counts, grid
from moe_jax.figures import colour_by, row_of_panels, style
from moe_jax.html import bullets, table
from moe_jax.papers.item import Drawing, Item
from moe_jax.papers.sources import CHECKOUT, Sources
from moe_jax.tables import count, short

TITLE = "Scaling Fine-Grained MoE Beyond 50B Parameters, reproduced"
NEEDS = ("n_total_nonemb", "tokens", "active_rate", "granularity")  # columns of our runs
_AT = ["n_total_nonemb", "tokens", "active_rate"]  # what G is compared within


def reproduce(sources: Sources) -> tuple[list[str], Iterator[Item]]:
    """(sentences, items)."""
    pairs = _pairs(sources.printed["secondary"])
    gains = ", ".join(f"{p['gain']:+.3f} nats at {p['where']}" for p in pairs)
    said = [
        f"Validation loss at G = 8 less that at G = 1: {gains} (secondary: {sources.printed['marks']['secondary']}).",
        "No law is printed, so nothing follows from coefficients; third-party losses do not exist.",
    ]
    ours = None if sources.ours is None else _ours(sources.ours)
    if ours is not None:
        better = int((ours["gain"] < 0).sum())
        said.append(
            f"Our runs: the finest G is better than the coarsest in {better} of {count(len(ours), 'pair')} of the same"
            " N, D and active rate."
            if len(ours)
            else "Our runs have no two G at the same N, D and active rate."
        )
    return said, _items(sources, pairs, ours)


def _items(sources: Sources, pairs: list[dict], ours: pd.DataFrame | None) -> Iterator[Item]:
    printed = sources.printed
    rows = [
        [
            f"{r['scale']}, {r['K']}×FLOPs-G{r['G']}", f"{8 * r['G']}", f"{r['K'] * r['G']}", f"{r['valid_loss']:.3f}",
            f"{r['accuracy']:.1%}", "secondary",
        ]
        for r in printed["secondary"]
    ]  # fmt: skip
    heads = ("variant", ">experts", ">top-k", ">validation loss", ">mean accuracy", "mark")
    yield Item("Results: G = 1 against G = 8", [table(heads, rows), Drawing("gain", _CAPTION, _gain(pairs, ours))])
    yield _shapes(printed)
    if ours is not None and len(ours):
        rows = [
            [
                short(r["n_total_nonemb"]), short(r["tokens"]), f"{r['active_rate']:g}",
                f"{r['coarse']:g} → {r['fine']:g}", f"{r['loss_coarse']:.4f}", f"{r['loss_fine']:.4f}",
                f"{r['gain']:+.4f}",
            ]
            for _, r in ours.iterrows()
        ]  # fmt: skip
        heads = (">N total", ">D", ">K", ">G", ">loss, coarsest", ">loss, finest", ">difference")
        yield Item(f"Our runs: {sources.name}", [table(heads, rows)])
    missing = [
        "The paper's tables of configurations, its budgets, scores of single benchmarks, and effect sizes of its "
        "ablations are not in the text at hand: they are left out rather than guessed.",
    ]
    yield Item("What cannot be had", [bullets(missing)])


_CAPTION = "Loss at the finest G less loss at the coarsest; below 0 finer is better. Secondary numbers, and our runs."


def _pairs(secondary: list[dict]) -> list[dict]:
    found = []
    for scale in dict.fromkeys(r["scale"] for r in secondary):
        coarse, fine = sorted((r for r in secondary if r["scale"] == scale), key=lambda r: r["G"])
        where = f"{scale}, {coarse['K']}×FLOPs"
        found.append({"where": where, "gain": fine["valid_loss"] - coarse["valid_loss"]})
    return found


def _ours(rows: pd.DataFrame) -> pd.DataFrame:
    """The coarsest and finest G of each (N, D, active rate); seeds are averaged."""
    found = []
    for at, cell in rows[rows["granularity"].notna()].groupby(_AT):
        losses = cell.groupby("granularity")["eval_loss"].mean()
        if len(losses) > 1:
            coarse, fine = losses.index.min(), losses.index.max()
            values = {"coarse": coarse, "fine": fine, "loss_coarse": losses[coarse], "loss_fine": losses[fine]}
            found.append(dict(zip(_AT, at, strict=True)) | values | {"gain": losses[fine] - losses[coarse]})
    return pd.DataFrame(found, columns=[*_AT, "coarse", "fine", "loss_coarse", "loss_fine", "gain"])


def _shapes(printed: dict) -> Item:
    rows = []
    for form in ("11b", "56b"):
        file = configfile.load([f"--config={CHECKOUT / 'configs' / 'krajewski2025.py'}:{form}"])
        for run in grid.expand(file.base.to_dict(), file.cells):
            c, m = run.config, run.config.model
            n = counts.count_parameters(c, m.vocabulary_size)
            rows.append(
                [
                    form.upper(), f"{c.moe.active_rate:g}×FLOPs-G{c.moe.granularity:g}", str(m.d_model),
                    str(m.n_blocks), str(c.moe.n_experts), str(c.moe.top_k), short(n.n_total), short(n.n_active),
                    "derived",
                ]
            )  # fmt: skip
    total, active = printed["abstract"]["total"], printed["abstract"]["active"]
    caption = (
        f"configs/krajewski2025.py. The abstract says {short(total)} total, {short(active)} active; the shapes are "
        f"{printed['marks']['derived']}."
    )
    heads = ("scale", "variant", ">d", ">blocks", ">experts", ">top-k", ">N total", ">N active", "mark")
    return Item("Shapes", [table(heads, rows, caption=caption)])


def _gain(pairs: list[dict], ours: pd.DataFrame | None) -> Figure:
    bars = [(p["where"], p["gain"], "#1f5fa8") for p in pairs]
    if ours is not None:
        colours = colour_by(ours["n_total_nonemb"].unique())
        bars += [
            (f"N {short(r['n_total_nonemb'])}, D {short(r['tokens'])}, K {r['active_rate']:g}", r["gain"],
             colours[r["n_total_nonemb"]])
            for _, r in ours.head(24).iterrows()
        ]  # fmt: skip
    with style():
        figure, (ax,) = row_of_panels(1)
        figure.set_size_inches(6.8, 1.0 + 0.3 * len(bars))
        at = np.arange(len(bars))
        ax.barh(at, [gain for _, gain, _ in bars], color=[colour for *_, colour in bars], height=0.55)
        ax.axvline(0, color="0.4", linewidth=0.8)
        ax.set_yticks(at, [name for name, *_ in bars])
        ax.invert_yaxis()
        ax.set_xlabel("loss at the finest G − at the coarsest (nats)")
        return figure
