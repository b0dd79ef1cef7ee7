"""Scaling laws: declare, fit, doubt, predict, plan, on any table of losses; `moe-jax fit` is a thin face of `fit`.

    from moe_jax import laws

    fitted = laws.fit("results.csv", law="krajewski2024")   # or a DataFrame; columns={"N": "params"}, where="G > 1"
    fitted.law.coefficients, fitted.law.intervals, fitted.law.doubts
    fitted.law.predict({"N": 1e9, "D": 2e10, "G": 8})       # value, low, high
    laws.plots.fit(fitted)                                  # matplotlib figures: %matplotlib inline shows them
    laws.plots.profile(laws.profile(fitted, "alpha", [0.10, 0.11, 0.12, 0.13]), "alpha")
    plans = laws.optimum(fitted.law, [1e20, 1e22], choices=laws.Choices(expansion_rates=[64]))
    laws.plots.optimum(plans)
    laws.plots.isoflop(laws.isoflop.fit("results.csv", "isoflop_parabolas"))

laws.load("law.json") and laws.published("krajewski2024") give laws as well.
"""

from moe_jax.laws import dense, isoflop, sparse  # noqa: F401  (dense and sparse declare the forms)
from moe_jax.laws.bootstrap import Resampling
from moe_jax.laws.fitting import Fit, fit, rows_of
from moe_jax.laws.forms import FORMS, Form, declare, exp, exponent, get, log, positive, power
from moe_jax.laws.law import Law, find, load, published
from moe_jax.laws.objective import Objective
from moe_jax.laws.optima import Choices, Limits, Plan, optimum
from moe_jax.laws.scrutiny import accepted, compare, leverage, profile
from moe_jax.laws.shapes import Shape
from moe_jax.laws.splits import Split


def __getattr__(name: str):
    """laws.plots, imported when asked for: fits need no matplotlib."""
    if name == "plots":
        import importlib

        return importlib.import_module("moe_jax.laws.plots")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "FORMS", "Choices", "Fit", "Form", "Law", "Limits", "Objective", "Plan", "Resampling", "Shape", "Split", "accepted",
    "compare", "declare", "exp", "exponent", "find", "fit", "get", "isoflop", "leverage", "load", "log", "optimum",
    "plots", "positive", "power", "profile", "published", "rows_of",
]  # fmt: skip
