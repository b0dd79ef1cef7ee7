"""Scaling laws on any table of losses: declare, fit, check identifiability, predict, plan.

    from moe_jax import laws

    fitted = laws.fit("results.csv", law="krajewski2024")   # or a DataFrame; columns={"N": "params"}, where="G > 1"
    fitted.law.coefficients, fitted.law.intervals, fitted.law.identifiability.warnings
    laws.tabulate(list(laws.fit_groups("runs.parquet", group_by="dataset", sigma="loss_std")))    # a law for each group
    fitted.law.predict({"N": 1e9, "D": 2e10, "G": 8})       # value, low, high
    laws.plots.extrapolation(fitted)                        # matplotlib figures: %matplotlib inline shows them
    laws.plots.every(fitted)                                # name -> what draws each figure of a fit
    laws.plots.profile(laws.profile(fitted, "alpha", [0.10, 0.11, 0.12, 0.13]), "alpha")
    planner = laws.Planner(fitted.law, choices=laws.Choices(expansion_rates=[64]))
    laws.plots.optimum([planner.best(C) for C in (1e20, 1e22)])
    laws.plots.isoflop(laws.isoflop.fit("results.csv", "parabola"))

laws.load("law.json") and laws.published("krajewski2024") give laws as well. A form of your own is declared with
laws.declare (see forms) and fitted by its name, or from its file: laws.fit("results.csv", law="my_law.py:my_law").
"""

from moe_jax.laws import dense, isoflop, rates, repetition, sparse, speed  # noqa: F401  (they declare the forms)
from moe_jax.laws.bands import Bands
from moe_jax.laws.bootstrap import Resampling
from moe_jax.laws.choices import DENSE, Choices, Limits
from moe_jax.laws.cross_validation import CrossValidation, cross_validate
from moe_jax.laws.diagnostics import accepted, compare, leverage, profile
from moe_jax.laws.efficiency_leverage import efficiency_leverage, ling2025_leverage
from moe_jax.laws.extrapolation import Extrapolation
from moe_jax.laws.fitting import Fit, fit, rows_of
from moe_jax.laws.forms import (
    FORMS,
    LOSS,
    QUANTITIES,
    Form,
    declare,
    exp,
    exponent,
    get,
    log,
    minimum,
    positive,
    power,
)  # fmt: skip
from moe_jax.laws.groups import GroupFit, fit_groups, tabulate
from moe_jax.laws.law import FitData, FitMethod, Identifiability, Law, find, load, published
from moe_jax.laws.meaning import columns_meant
from moe_jax.laws.next_runs import NextRun, next_runs
from moe_jax.laws.objective import Objective
from moe_jax.laws.planner import Plan, Planner
from moe_jax.laws.reach import Reach
from moe_jax.laws.residual_columns import explain_residuals
from moe_jax.laws.shapes import Shape
from moe_jax.laws.splits import Split


def __getattr__(name: str):
    """laws.plots, imported when asked for: fits need no matplotlib."""
    if name == "plots":
        import importlib

        return importlib.import_module("moe_jax.laws.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "DENSE", "FORMS", "LOSS", "QUANTITIES", "Bands", "Choices", "CrossValidation", "Extrapolation", "Fit", "FitData",
    "FitMethod", "Form", "GroupFit", "Identifiability", "Law", "Limits", "NextRun", "Objective", "Plan", "Planner",
    "Reach", "Resampling", "Shape", "Split", "accepted", "columns_meant", "compare", "cross_validate", "declare",
    "efficiency_leverage", "exp", "explain_residuals", "exponent", "find", "fit", "fit_groups", "get", "isoflop",
    "leverage", "ling2025_leverage", "load", "log", "minimum", "next_runs", "plots", "positive", "power", "profile",
    "published", "rows_of", "speed", "tabulate",
]  # fmt: skip
