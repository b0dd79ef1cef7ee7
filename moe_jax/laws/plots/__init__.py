"""Figures of a fit, for notebooks and papers: each function returns a matplotlib Figure and shows nothing.

    laws.plots.fit(fitted).savefig("fit.svg")        # as the last line of a notebook's cell a figure shows itself
    laws.plots.extrapolation(fitted)                 # loss against compute, with bands, and beyond the runs
    for name, draw in laws.plots.every(fitted).items(): draw()  # all that can be drawn from a fit alone

canvas is what they share; along_budgets asks a law for its compute-optimal plans."""

from moe_jax.laws.plots.against_data import fit
from moe_jax.laws.plots.all_of_a_fit import every
from moe_jax.laws.plots.extrapolation import extrapolation
from moe_jax.laws.plots.frontier import frontier
from moe_jax.laws.plots.granularities import granularities
from moe_jax.laws.plots.isoflop_curves import isoflop_curves
from moe_jax.laws.plots.isoflop_fits import isoflop
from moe_jax.laws.plots.optima import optimum
from moe_jax.laws.plots.profiles import profile
from moe_jax.laws.plots.residuals import residuals

__all__ = [
    "every", "extrapolation", "fit", "frontier", "granularities", "isoflop", "isoflop_curves", "optimum",
    "profile", "residuals",
]  # fmt: skip
