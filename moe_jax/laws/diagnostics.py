"""Diagnostics of a fit: profiles of coefficients, leverage of single runs, comparison with other forms."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws import information, limits, starts, uncertainty
from moe_jax.laws.fitting import Fit, fit
from moe_jax.laws.law import Law
from moe_jax.laws.levenberg_marquardt import descend
from moe_jax.laws.objective import Problem
from moe_jax.laws.splits import Split

# Quantiles of chi-square with one degree of freedom: the largest deviance accepted at each level.
DEVIANCE = {0.8: 1.6424, 0.9: 2.7055, 0.95: 3.8415}


def profile(fitted: Fit, name: str, values: Sequence[float], tries: int = 8) -> pd.DataFrame:
    """Profile likelihood of one coefficient: it is held at each of `values` and the others are fitted again.

    Columns: value, objective, deviance, rmse (nats) and the other coefficients. tries: starts for each value.
    deviance: twice the drop in log likelihood against the best of all, with the residual scale fitted too: n ln(f/f*)
    where residuals are within δ (normal errors), 2n ln(f/f*) where they are beyond (Laplace), in proportion in between.
    Raises UserError where the law has no such coefficient."""
    form, law = fitted.law.form, fitted.law
    check_coefficient(law, name)
    index, problem = form.names.index(name), fitted.problem
    free = np.array([k not in law.fixed_coefficients and k != name for k in form.names])
    best = form.inner(law.coefficients)
    begin = (
        np.concatenate([best[None], starts.choose(problem, tries - 1, law.fixed_coefficients)])
        if tries > 1
        else best[None]
    )
    batch = np.repeat(begin[None], len(values), axis=0)
    batch[..., index] = form.coefficients[name].inner(np.asarray(values, float))[:, None]
    found = descend(problem, batch.reshape(-1, len(form.names)), free_BxP=free)
    value = found.value.reshape(len(values), -1)
    theta = found.theta.reshape(len(values), -1, len(form.names))[np.arange(len(values)), value.argmin(1)]
    lowest = value.min(1)

    residuals = np.array([_residuals(problem, t) for t in theta])
    outside = information.share_outside(problem, best)
    reference = min(lowest.min(), float(problem.values(best[None])[0]))
    table = {
        "value": values,
        "objective": lowest,
        "deviance": (1 + outside) * len(problem.losses) * np.log(lowest / reference),
        "rmse": np.sqrt((residuals**2).mean(1)),
    }
    return pd.DataFrame({**table, **{k: v for k, v in form.outer(theta).items() if k != name}})


def check_coefficient(law: Law, name: str) -> None:
    """Raises UserError where the law has no coefficient of this name."""
    if name not in law.form.coefficients:
        raise errors.UserError(f"{law.name} has no coefficient {name!r}; it has {', '.join(law.form.names)}")


def accepted(profile: pd.DataFrame, level: float = 0.8) -> tuple[float, float]:
    """(lowest, highest) value of a profile that the data accept at a level of DEVIANCE; NaN where they accept none.

    A range that ends where the profile ends may be wider."""
    kept = profile["value"][profile["deviance"] <= DEVIANCE[level]]
    return (float(kept.min()), float(kept.max())) if len(kept) else (np.nan, np.nan)


def leverage(fitted: Fit) -> pd.DataFrame:
    """The influence of each fitted run: what changes in a fit without it. One row a run, the most influential first.

    shift: RMS change of the predicted losses, in units of rmse_fit. coefficient, moved: the coefficient that changes
    most, and by how many half-widths of its bootstrap interval (NaN without one). residual: measured − predicted by
    the fit with all runs, nats. Raises UserError for more rows than can be left out in turn."""
    form, law, problem = fitted.law.form, fitted.law, fitted.problem
    rows = fitted.train
    limits.refuse_leaving_out(len(rows))
    free = np.array([k not in law.fixed_coefficients for k in form.names])
    best = form.inner(law.coefficients)
    others = uncertainty.without_each(problem, best, free)
    predicted = form.as_errors(form.loss(rows.columns, law.coefficients))
    without = (form.as_errors(form.loss(rows.columns, form.outer(theta))) for theta in others)
    shift = np.array([np.sqrt(((losses - predicted) ** 2).mean()) for losses in without])
    half = np.full(len(form.names), np.nan)
    for i, k in enumerate(form.names):
        if k in law.intervals:
            half[i] = np.diff(form.coefficients[k].inner(np.array(law.intervals[k])))[0] / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.where(free, np.abs(others - best) / half, 0.0)
    most = np.argmax(np.nan_to_num(moved), axis=1)
    table = pd.DataFrame(
        {
            "name": rows.names,
            "shift": shift / max(law.errors["rmse_fit"], 1e-300),
            "coefficient": np.array(form.names)[most],
            "moved": moved[np.arange(len(rows)), most],
            "residual": form.as_errors(rows.losses) - predicted,
        }
    )
    return table.sort_values("shift", ascending=False, ignore_index=True)


def compare(
    table, laws: Sequence[str], *, split: Split | None = None, fix: Mapping[str, Mapping] | None = None, **options
) -> pd.DataFrame:
    """Several forms on the same runs, the lowest held-out error first.

    laws: names as for `fit`. split: default the 20% of runs with the lowest loss held out, the papers' test of
    extrapolation. fix: by law, coefficients to hold. options: as for `fit`. aic, bic: differences to the lowest, on the
    rows fitted (see information.criteria). Raises UserError for a split without held
    out runs, and where the forms would not be fitted to the same runs."""
    split = split or Split(holdout="lowest:0.2")
    if not split.holdout:
        raise errors.UserError("a comparison needs runs that no form was fitted to; --holdout names them")
    fits = {name: fit(table, law=name, split=split, fix=(fix or {}).get(name), **options) for name in laws}
    seen = {(f.rows.names, tuple(f.held_out)) for f in fits.values()}
    if len(seen) > 1:
        raise errors.UserError(
            "the laws would be fitted to different runs; --where selects runs that all of them can use"
        )
    n_free = [len(f.law.form.names) - len(f.law.fixed_coefficients) for f in fits.values()]
    optima = [f.law.form.inner(f.law.coefficients) for f in fits.values()]
    aic, bic = information.criteria([f.problem for f in fits.values()], optima, n_free)
    rows = [
        {
            "law": name,
            "coefficients": n_free[i],
            "rmse_holdout": f.law.errors["rmse_holdout"],
            "mean_holdout": f.law.errors["mean_holdout"],
            "rmse_fit": f.law.errors["rmse_fit"],
            "aic": float(aic[i]),
            "bic": float(bic[i]),
            "not identified": " ".join(f.law.identifiability.unidentified),
        }
        for i, (name, f) in enumerate(fits.items())
    ]
    return pd.DataFrame(rows).sort_values("rmse_holdout", ignore_index=True)


def _residuals(problem: Problem, theta: np.ndarray) -> np.ndarray:
    columns = dict(zip(problem.form.symbols, problem.columns, strict=True))
    return problem.form.loss(columns, problem.form.outer(theta)) - problem.losses
