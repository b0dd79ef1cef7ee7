"""Iso-FLOP fits: a parabola for each budget (Hoffmann et al. 2022), or a surface (Abnar et al. 2025)."""

from moe_jax.laws.isoflop.fits import KINDS, IsoFlop, fit, load

__all__ = ["KINDS", "IsoFlop", "fit", "load"]
