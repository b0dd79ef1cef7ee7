"""Every figure that a fit alone gives."""

from collections.abc import Callable
from functools import partial

from matplotlib.figure import Figure

from moe_jax.laws.fitting import Fit
from moe_jax.laws.plots import along_budgets
from moe_jax.laws.plots.against_data import fit
from moe_jax.laws.plots.extrapolation import extrapolation
from moe_jax.laws.plots.frontier import frontier
from moe_jax.laws.plots.granularities import granularities
from moe_jax.laws.plots.isoflop_curves import isoflop_curves
from moe_jax.laws.plots.optima import optimum
from moe_jax.laws.plots.residuals import residuals


def every(fitted: Fit) -> dict[str, Callable[[], Figure]]:
    """Name -> what draws the figure. One that this law does not have raises UserError, which says why: a law without
    N or D has no compute-optimal plan."""
    figures = {
        "fit": fit, "residuals": residuals, "extrapolation": extrapolation, "frontier": frontier,
        "optimum": optimum_of, "isoflop_curves": isoflop_curves,
    }  # fmt: skip
    if "G" in fitted.law.form.symbols:
        figures["granularities"] = granularities
    return {name: partial(draw, fitted) for name, draw in figures.items()}


def optimum_of(fitted: Fit, beyond: float = along_budgets.BEYOND) -> Figure:
    """`optimum` of the fit's own plans, from its cheapest run to `beyond` times its dearest.

    Raises UserError for a law that cannot plan a budget."""
    planner = along_budgets.planner_of(fitted.law)
    at = along_budgets.budgets(along_budgets.runs_of(fitted, planner).flops, beyond)
    return optimum(along_budgets.plans(planner, at))
