"""Scaling laws: declare, fit, doubt, predict, on any table of losses; `moe-jax fit` is a thin face of `fit`.

    from moe_jax import laws
    law = laws.fit("results.csv", law="krajewski2024").law
    value, low, high = law.predict({"N": 1e9, "D": 2e10, "G": 8})

laws.load("law.json") and laws.published("krajewski2024") give laws as well.
"""

from moe_jax.laws import dense, sparse  # noqa: F401  (they declare the forms)
from moe_jax.laws.bootstrap import Resampling
from moe_jax.laws.fitting import Fit, fit, rows_of
from moe_jax.laws.forms import FORMS, Form, declare, exp, exponent, get, log, positive, power
from moe_jax.laws.law import Law, find, load, published
from moe_jax.laws.objective import Objective
from moe_jax.laws.optima import Choices, Limits, Plan, optimum
from moe_jax.laws.scrutiny import accepted, compare, leverage, profile
from moe_jax.laws.shapes import Shape
from moe_jax.laws.splits import Split

__all__ = [
    "FORMS", "Choices", "Fit", "Form", "Law", "Limits", "Objective", "Plan", "Resampling", "Shape", "Split", "accepted",
    "compare", "declare", "exp", "exponent", "find", "fit", "get", "leverage", "load", "log", "optimum", "positive",
    "power", "profile", "published", "rows_of",
]  # fmt: skip
