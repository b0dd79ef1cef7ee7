"""Iso-FLOP fits: minima of each budget (Hoffmann et al. 2022, approaches 1 and 2), or surfaces (Abnar et al. 2025).

fits        fit a table by one of METHODS
stored      the file that keeps the fits
budgets     which runs share a budget
one_budget  the minimum of one budget, by four methods; minima: of all, and the power law through them
bias        grids of sizes that bias a parabola; envelope: approach 1; surfaces: over size and sparsity
"""

from moe_jax.laws.isoflop.fits import METHODS, IsoFlop, fit
from moe_jax.laws.isoflop.stored import load, save

__all__ = ["METHODS", "IsoFlop", "fit", "load", "save"]
