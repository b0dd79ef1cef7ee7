"""Scaling Fine-Grained MoE Beyond 50B Parameters (Krajewski et al. 2025): its comparison of G = 1 with G = 8.

Only the abstract was available. The numbers come from one summary and are marked secondary; shapes are derived."""

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from moe_jax.config import config_file, counts, packaged
from moe_jax.laws.plots.figure_style import style
from moe_jax.report import downstream
from moe_jax.report.downstream import ACCURACY, BITS
from moe_jax.report.drawing import Drawing
from moe_jax.report.elements import Table
from moe_jax.report.panels import BLUE, colour_by, row_of_panels
from moe_jax.report.papers.item import Item, not_reproduced
from moe_jax.report.papers.sources import Sources
from moe_jax.text import count, short

TITLE = "Scaling Fine-Grained MoE Beyond 50B Parameters, reproduced"
NEEDS = ("n_total_nonemb", "tokens", "active_rate", "granularity")  # columns of our runs
_SAME = ["n_total_nonemb", "tokens", "active_rate"]  # G is compared between runs that agree in these


def reproduce(sources: Sources) -> tuple[list[str], Iterator[Item]]:
    """(sentences, items)."""
    pairs = _pairs(sources.printed["secondary"])
    gains = ", ".join(f"{p['gain']:+.3f} nats at {p['where']}" for p in pairs)
    said = [
        f"Validation loss at G = 8 minus that at G = 1: {gains} (secondary: {sources.printed['marks']['secondary']}).",
        "The summary prints no law, so nothing follows from coefficients; there are no third-party losses.",
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
    yield _results(sources.printed, pairs, ours)
    yield _shapes(sources.printed)
    if ours is not None and len(ours):
        yield _our_pairs(sources.name, ours)
        yield from _our_tasks(sources.ours)
    yield not_reproduced(
        "The paper's tables of configurations, its budgets, scores of single benchmarks, and effect sizes of its "
        "ablations are not in the text at hand: they are left out rather than guessed."
    )


def _results(printed: dict, pairs: list[dict], ours: pd.DataFrame | None) -> Item:
    rows = [
        [
            f"{r['scale']}, {r['K']}×FLOPs-G{r['G']}", f"{8 * r['G']}", f"{r['K'] * r['G']}", f"{r['valid_loss']:.3f}",
            f"{r['accuracy']:.1%}", "secondary",
        ]
        for r in printed["secondary"]
    ]  # fmt: skip
    heads = ("variant", ">experts", ">top-k", ">validation loss", ">mean accuracy", "mark")
    caption = "Loss at the finest G minus loss at the coarsest; below 0 finer is better. Secondary, and our runs."
    drawing = Drawing("gain", caption, "effect of G", functools.partial(_figure_of_gains, pairs, ours))
    return Item("Results: G = 1 against G = 8", [Table(heads, rows), drawing])


def _our_pairs(name: str, ours: pd.DataFrame) -> Item:
    rows = [
        [
            short(r["n_total_nonemb"]), short(r["tokens"]), f"{r['active_rate']:g}", f"{r['coarse']:g} → {r['fine']:g}",
            f"{r['loss_coarse']:.4f}", f"{r['loss_fine']:.4f}", f"{r['gain']:+.4f}",
        ]
        for _, r in ours.iterrows()
    ]  # fmt: skip
    heads = (">N total", ">D", ">K", ">G", ">loss, coarsest", ">loss, finest", ">difference")
    return Item(f"Our runs: {name}", [Table(heads, rows)])


def _our_tasks(rows: pd.DataFrame) -> Iterator[Item]:
    """Tasks at the coarsest and finest G of each (N, D, active rate), beside the losses."""
    columns = [c for name in downstream.tasks(rows.columns) for c in (name + ACCURACY, name + BITS) if c in rows]
    cells = [
        [
            short(r["n_total_nonemb"]), short(r["tokens"]), f"{r['active_rate']:g}", f"{r['coarse']:g} → {r['fine']:g}",
            f"{r['gain']:+.4f}", *(f"{r['changes'][c]:+.3f}" for c in columns),
        ]
        for _, r in _ours(rows.dropna(subset=columns), columns).iterrows()
    ]  # fmt: skip
    if columns and cells:
        heads = (">N total", ">D", ">K", ">G", ">loss", *(f">{c.replace('_', ' ')}" for c in columns))
        caption = "The finest G minus the coarsest: losses in nats a token, accuracies as shares, bits a byte."
        yield Item("Our runs on tasks", [Table(heads, cells, caption=caption)])


def _pairs(secondary: list[dict]) -> list[dict]:
    """Each scale's loss at G = 8 minus that at G = 1."""
    found = []
    for scale in dict.fromkeys(r["scale"] for r in secondary):
        coarse, fine = sorted((r for r in secondary if r["scale"] == scale), key=lambda r: r["G"])
        where = f"{scale}, {coarse['K']}×FLOPs"
        found.append({"where": where, "gain": fine["valid_loss"] - coarse["valid_loss"]})
    return found


def _ours(rows: pd.DataFrame, others: Sequence[str] = ()) -> pd.DataFrame:
    """The coarsest and finest G of each (N, D, active rate); seeds are averaged. `changes`: the finest minus the
    coarsest in each of the `others` columns."""
    found = []
    for same, cell in rows[rows["granularity"].notna()].groupby(_SAME):
        means = cell.groupby("granularity")[["eval_loss", *others]].mean()
        losses = means["eval_loss"]
        if len(losses) > 1:
            coarse, fine = losses.index.min(), losses.index.max()
            values = {"coarse": coarse, "fine": fine, "loss_coarse": losses[coarse], "loss_fine": losses[fine]}
            values |= {"gain": losses[fine] - losses[coarse], "changes": means.loc[fine] - means.loc[coarse]}
            found.append(dict(zip(_SAME, same, strict=True)) | values)
    return pd.DataFrame(found, columns=[*_SAME, "coarse", "fine", "loss_coarse", "loss_fine", "gain", "changes"])


def _shapes(printed: dict) -> Item:
    rows = []
    for variant in ("11b", "56b"):
        file = config_file.load([f"--config={packaged.folder() / 'krajewski2025.py'}:{variant}"])
        for run in file.runs():
            c, m = run.config, run.config.model
            n = counts.count_parameters(c, m.vocab_size)
            rows.append(
                [
                    variant.upper(), f"{c.moe.active_rate:g}×FLOPs-G{c.moe.granularity:g}", str(m.d_model),
                    str(m.n_layers), str(c.moe.n_experts), str(c.moe.top_k), short(n.n_total), short(n.n_active),
                    "derived",
                ]
            )  # fmt: skip
    total, active = printed["abstract"]["total"], printed["abstract"]["active"]
    caption = (
        f"configs/krajewski2025.py. The abstract says {short(total)} total, {short(active)} active; the shapes are "
        f"{printed['marks']['derived']}."
    )
    heads = ("scale", "variant", ">d", ">layers", ">experts", ">top-k", ">N total", ">N active", "mark")
    return Item("Shapes", [Table(heads, rows, caption=caption)])


def _figure_of_gains(pairs: list[dict], ours: pd.DataFrame | None) -> Figure:
    bars = [(p["where"], p["gain"], BLUE) for p in pairs]
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
