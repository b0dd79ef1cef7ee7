"""Scaling Laws for Fine-Grained Mixture of Experts (Krajewski et al. 2024): tables 1 to 9, figures 1 and 3 to 7.

Three columns: printed numbers, third-party losses of Table 3 recovered from plots, and our runs. All laws are fitted
with the paper's own objective (laws.presets); experiments/krajewski2024/README.md discusses that objective.

fits: every fit, once · needed: FLOPs for the same loss · coefficients: tables 1, 5, 8 · optimum: figure 1, tables 2, 6,
9 · grids: tables 3, 4, 7 · losses: figures 3, 4, 6, 7 · figures: how these are drawn"""

from collections.abc import Iterator, Mapping

from moe_jax import laws
from moe_jax.report.papers.item import Item, not_reproduced
from moe_jax.report.papers.krajewski2024 import coefficients, grids, losses, optimum
from moe_jax.report.papers.krajewski2024.fits import Fits, fit_all
from moe_jax.report.papers.krajewski2024.needed import Needed, flops_needed
from moe_jax.report.papers.sources import Sources
from moe_jax.text import count

TITLE = "Scaling Laws for Fine-Grained Mixture of Experts, reproduced"
NEEDS = ("n_total_nonemb", "n_active_nonemb", "tokens", "granularity")  # columns of our runs


def reproduce(sources: Sources) -> tuple[list[str], Iterator[Item]]:
    """(sentences, items)."""
    fits = fit_all(sources)
    needed = flops_needed(fits)
    return _sentences(sources, fits, needed), _items(sources, fits, needed)


def _items(sources: Sources, fits: Fits, needed: Mapping[str, Needed]) -> Iterator[Item]:
    printed = sources.printed
    yield optimum.figure_1(printed, needed)
    yield coefficients.table_1(printed, fits)
    yield optimum.table_2(printed, fits)
    yield from losses.items(sources, fits)
    yield grids.tables_3_4_7(printed)
    yield coefficients.table_5(printed, fits)
    yield optimum.table_6(printed, fits)
    yield coefficients.table_8(printed, fits)
    yield optimum.table_9(printed)
    yield not_reproduced(
        "Figure 2 is a drawing. Figure 5b, loss against GPU hours, needs the authors' clocks.",
        "The losses of E = 16, of 3 of Table 3's 78 runs and of half the dense runs were neither published nor"
        " recovered.",
    )


def _sentences(sources: Sources, fits: Fits, needed: Mapping[str, Needed]) -> list[str]:
    claims, found = sources.printed["claims"], needed["the paper's coefficients"]
    said = [
        f"By the paper's coefficients dense models need {found.dense_at(1e20):.1f} times the FLOPs at 1e20 and "
        f"{found.dense_at(1e25):.1f} times at 1e25. Its text says {claims['dense_needs_at_1e20']} times, and above"
        f" {claims['dense_needs_above_1e25']} times from 1e25 on; the second does not follow from its own law.",
        f"G = 1 needs {found.coarse_at(1e20):.2f} times the FLOPs of the best G at 1e20, and "
        f"{found.coarse_at(1e25):.2f} times at 1e25.",
    ]
    if fits.third_party is not None:
        law = fits.third_party.law
        said.append(
            f"The third-party losses give the printed coefficients ({count(law.data.n_fit, 'run')}, RMSE "
            f"{law.errors['rmse_fit']:.4f} nats; {fits.third_party_held_out.law.errors['rmse_holdout']:.4f} on the 20%"
            " lowest, held out) with the objective of the authors' code, and quite different ones without its penalty:"
            " see experiments/krajewski2024/README.md."
        )
    if (refits := needed.get("refits of third-party losses")) is not None:
        said.append(
            f"With both laws refitted to third-party losses dense models need {refits.dense_at(1e20):.1f} times the "
            f"FLOPs at 1e20 and {refits.dense_at(1e25):.1f} times at 1e25; the dense refit has 11 small runs."
        )
    if isinstance(fits.ours, laws.Fit):
        runs, rmse = count(fits.ours.law.data.n_fit, "run"), fits.ours.law.errors["rmse_fit"]
        said.append(f"Our {runs} give this law with an RMSE of {rmse:.4f} nats.")
    return [*said, sources.absent] if sources.absent else said
