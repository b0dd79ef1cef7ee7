"""A paper's law fitted to other runs, and the table cells of such a fit."""

from collections.abc import Callable

import pandas as pd

from moe_jax import laws
from moe_jax.errors import UserError


def fit_or_reason(fit: Callable[[pd.DataFrame], laws.Fit], runs: pd.DataFrame) -> laws.Fit | str:
    """fit(runs), or a sentence on why these runs cannot be fitted."""
    if runs.empty:
        return "there are no such runs"
    try:
        return fit(runs)
    except UserError as e:
        return str(e)


def fit_form(form: str, runs: pd.DataFrame | None) -> laws.Fit | str | None:
    """The form fitted to our runs without a bootstrap, or why it cannot be; None without runs."""
    if runs is None:
        return None
    return fit_or_reason(lambda table: laws.fit(table, form, resampling=laws.Resampling(samples=0)), runs)


def coefficient(fit: laws.Fit | str | None, name: str) -> str:
    """A coefficient's table cell: the value with its interval, or that it was fixed; a dash without a fit."""
    if not isinstance(fit, laws.Fit):
        return "–"
    law, text = fit.law, f"{fit.law.coefficients[name]:.4g}"
    if name in law.fixed_coefficients:
        return f"{text} (fixed)"
    return text if name not in law.intervals else f"{text} ({law.intervals[name][0]:.3g}–{law.intervals[name][1]:.3g})"


def error(fit: laws.Fit | str | None, name: str = "rmse_fit") -> str:
    """An error's table cell, nats; a dash without a fit."""
    return f"{fit.law.errors[name]:.4f}" if isinstance(fit, laws.Fit) and name in fit.law.errors else "–"
