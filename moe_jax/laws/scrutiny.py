"""A fit under scrutiny: profiles of single coefficients, the leverage of single runs, other forms on the same runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws import doubt, forms, starts
from moe_jax.laws.fitting import Fit, fit
from moe_jax.laws.law import Law
from moe_jax.laws.objective import Problem
from moe_jax.laws.optimise import descend
from moe_jax.laws.splits import Split

# Central 80% of chi-square with one degree of freedom: what twice a drop in log likelihood may be.
DEVIANCE = {0.8: 1.6424, 0.9: 2.7055, 0.95: 3.8415}


def profile(fitted: Fit, name: str, values: Sequence[float], tries: int = 8) -> pd.DataFrame:
    """The best fit with one coefficient held at each of `values`: columns value, objective, deviance, rmse,
    coefficients.

    deviance: twice the drop in log likelihood against the best of all, with the residual scale fitted too: n ln(f/f*)
    where residuals are within δ (normal errors), 2n ln(f/f*) where they are beyond (Laplace), in proportion in between.
    """
    form, law = fitted.law.form, fitted.law
    known(law, name)
    index, problem = form.names.index(name), fitted.problem
    free = np.array([k not in law.given and k != name for k in form.names])
    best = form.inner(law.coefficients)
    begin = np.concatenate([best[None], starts.choose(problem, tries - 1, law.given)]) if tries > 1 else best[None]
    batch = np.repeat(begin[None], len(values), axis=0)
    batch[..., index] = form.coefficients[name].inner(np.asarray(values, float))[:, None]
    found = descend(problem, batch.reshape(-1, len(form.names)), free_BxP=free)
    value = found.value.reshape(len(values), -1)
    theta = found.theta.reshape(len(values), -1, len(form.names))[np.arange(len(values)), value.argmin(1)]
    lowest = value.min(1)

    residuals = np.array([_residuals(problem, t) for t in theta])
    scale = problem.losses if problem.objective.space == "log" else 1.0
    outside = (np.abs(_residuals(problem, best) / scale) > problem.objective.huber).mean()
    reference = min(lowest.min(), float(problem.values(best[None], problem.weights[None])[0]))
    table = {
        "value": values,
        "objective": lowest,
        "deviance": (1 + outside) * len(problem.losses) * np.log(lowest / reference),
        "rmse": np.sqrt((residuals**2).mean(1)),
    }
    return pd.DataFrame({**table, **{k: v for k, v in form.outer(theta).items() if k != name}})


def known(law: Law, name: str) -> None:
    """Raises UserError where the law has no such coefficient."""
    if name not in law.form.coefficients:
        raise errors.UserError(f"{law.law} has no coefficient {name!r}; it has {', '.join(law.form.names)}")


def accepted(profile: pd.DataFrame, level: float = 0.8) -> tuple[float, float]:
    """The range of a profile's values that the data accept at a level of DEVIANCE; it may end where the profile
    does."""
    kept = profile["value"][profile["deviance"] <= DEVIANCE[level]]
    return (float(kept.min()), float(kept.max())) if len(kept) else (np.nan, np.nan)


def leverage(fitted: Fit) -> pd.DataFrame:
    """What each fitted run decides: a fit without it, one row a run, most influential first.

    shift: RMS change of the predicted losses in units of rmse_fit. coefficient, moved: the coefficient that changes
    most, in half-widths of its bootstrap interval (NaN without). residual: measured − predicted by the fit with all
    runs, nats."""
    form, law, problem = fitted.law.form, fitted.law, fitted.problem
    rows = fitted.train
    free = np.array([k not in law.given for k in form.names])
    best = form.inner(law.coefficients)
    others = doubt.without_each(problem, best, free)
    values = {k: v[:, None] for k, v in form.outer(others).items()}
    without = form.loss({s: v[None] for s, v in rows.columns.items()}, values)
    predicted = form.loss(rows.columns, law.coefficients)
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
            "shift": np.sqrt(((without - predicted) ** 2).mean(1)) / max(law.errors["rmse_fit"], 1e-300),
            "coefficient": np.array(form.names)[most],
            "moved": moved[np.arange(len(rows)), most],
            "residual": rows.losses - predicted,
        }
    )
    return table.sort_values("shift", ascending=False, ignore_index=True)


def compare(
    table, laws: Sequence[str], *, split: Split | None = None, fix: Mapping[str, Mapping] | None = None, **options
) -> pd.DataFrame:
    """Several forms on the same runs, the lowest held-out error first.

    split: default the 20% of runs with the lowest loss held out, the papers' test of extrapolation. fix: by form,
    coefficients to hold. options: as for fit. Raises UserError where the forms would not be fitted to the same runs.
    """
    split = split or Split(holdout="lowest:0.2")
    if not split.holdout:
        raise errors.UserError("a comparison needs runs that no form has seen; --holdout names them")
    fits = {name: fit(table, law=name, split=split, fix=(fix or {}).get(name), **options) for name in laws}
    seen = {(f.rows.names, tuple(f.held_out)) for f in fits.values()}
    if len(seen) > 1:
        raise errors.UserError("the laws would be fitted to different runs; --where picks those that all can use")
    rows = [
        {
            "law": name,
            "coefficients": len(forms.get(name).names) - len(f.law.given),
            "rmse_holdout": f.law.errors["rmse_holdout"],
            "mean_holdout": f.law.errors["mean_holdout"],
            "rmse_fit": f.law.errors["rmse_fit"],
            "not identified": " ".join(f.law.unidentified),
        }
        for name, f in fits.items()
    ]
    return pd.DataFrame(rows).sort_values("rmse_holdout", ignore_index=True)


def _residuals(problem: Problem, theta: np.ndarray) -> np.ndarray:
    columns = dict(zip(problem.form.symbols, problem.columns, strict=True))
    return problem.form.loss(columns, problem.form.outer(theta)) - problem.losses
