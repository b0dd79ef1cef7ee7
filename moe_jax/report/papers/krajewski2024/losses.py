"""Figures 3, 4, 6 and 7: third-party losses against the published law, and figures 4 and 6 of our runs."""

import functools
from collections.abc import Iterator

from moe_jax import laws
from moe_jax.report.drawing import Drawing
from moe_jax.report.papers.item import Item
from moe_jax.report.papers.krajewski2024 import figures
from moe_jax.report.papers.krajewski2024.fits import Fits
from moe_jax.report.papers.sources import Sources


def items(sources: Sources, fits: Fits) -> Iterator[Item]:
    """The figures that there are losses for."""
    if fits.runs is not None:
        yield from _third_party(sources, fits)
    if fits.our_runs is not None and len(fits.our_runs):
        yield _ours(sources, fits)


def _third_party(sources: Sources, fits: Fits) -> Iterator[Item]:
    law, runs, draw = laws.published("krajewski2024"), fits.runs, functools.partial
    drawn = "Dots: third-party losses; lines: the law as published."
    caption = (
        "(a) L − 3.12 against G for 64×25M on 16B tokens, (b) loss against N at G = 4, (c) what four times the tokens "
        f"gain at each G. {drawn}"
    )
    figure_3 = Drawing("figure3", caption, "loss against G, N and D", draw(figures.figure_3, runs, law))
    yield Item("Figure 3: granularity, size and tokens one by one", [figure_3])
    figure_4 = Drawing("figure4", f"Loss against G. {drawn}", "loss against G", draw(figures.loss_against_g, runs, law))
    yield Item("Figure 4: the law against the runs", [figure_4])
    by_n = draw(figures.loss_against_n, runs, law, (1, 2, 8, 16))
    figure_6 = Drawing("figure6", f"One panel per G. {drawn}", "loss against N", by_n)
    yield Item("Figure 6: loss against N", [figure_6])
    caption = "The constants are the paper's, chosen by hand. Lines: power laws through the dots."
    above = draw(figures.figure_7, runs, sources.printed["figure7"])
    figure_7 = Drawing("figure7", caption, "loss minus a constant against G", above)
    yield Item("Figure 7: a power law in G, above a constant", [figure_7])


def _ours(sources: Sources, fits: Fits) -> Item:
    runs, law = fits.our_runs, fits.ours.law if isinstance(fits.ours, laws.Fit) else None
    lines = "lines: the law fitted to them with the paper's objective" if law else "lines join the dots"
    by_g = functools.partial(figures.loss_against_g, runs, law)
    by_n = functools.partial(figures.loss_against_n, runs, law, sorted(runs["G"].unique()))
    return Item(
        "Figures 4 and 6, our runs",
        [
            Drawing(
                "ours_loss_against_g", f"{sources.name}: held-out loss against G; {lines}.", "loss against G", by_g
            ),
            Drawing(
                "ours_loss_against_n", f"{sources.name}: held-out loss against N; {lines}.", "loss against N", by_n
            ),
        ],
    )
