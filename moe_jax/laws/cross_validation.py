"""Cross-validation of a fit: leave one group out, or k folds drawn at random."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws.fitting import Fit
from moe_jax.laws.levenberg_marquardt import descend
from moe_jax.laws.rows import Rows

_MOST = 1_000  # folds


@dataclass(frozen=True)
class CrossValidation:
    """A law fitted without each fold in turn, and its errors on that fold."""

    rule: str
    # fold, runs, rmse, mean (measured − predicted; nats, or as Form.as_errors), and the coefficients without the fold
    folds: pd.DataFrame
    # coefficient, value (of all rows), low, high, spread (standard deviation) over the folds
    coefficients: pd.DataFrame
    rmse: float  # over all runs, each predicted by the fit without its fold
    mean: float


def cross_validate(fitted: Fit, rule: str) -> CrossValidation:
    """Fits the law again without each fold of the rows that it was fitted to, from its own optimum.

    rule: "group:COLUMN", a fold for each value of a column or symbol; or "K", so many folds of about the same number of
    runs, drawn at random with a fixed seed, which leave runs with the same axes together. Fixed coefficients stay
    fixed. Raises UserError for a rule that cannot be read, and where a fold leaves fewer rows than coefficients."""
    form, problem, rows = fitted.law.form, fitted.problem, fitted.train
    labels, of = _folds(rows, rule)
    free = np.array([k not in fitted.law.fixed_coefficients for k in form.names])
    kept = of[None] != np.arange(len(labels))[:, None]
    if (kept.sum(1) < free.sum()).any():
        fold = labels[int(kept.sum(1).argmin())]
        raise errors.UserError(
            f"--cross_validate {rule}: without fold {fold} {kept.sum(1).min()} rows are left for"
            f" {free.sum()} coefficients"
        )
    begin = np.tile(form.inner(fitted.law.coefficients), (len(labels), 1))
    without = form.outer(descend(problem, begin, kept.astype(np.uint8), free).theta)
    predicted = form.loss(rows.columns, {k: v[of] for k, v in without.items()})
    error = form.as_errors(rows.losses) - form.as_errors(predicted)
    by_fold = [error[of == i] for i in range(len(labels))]
    folds = {
        "fold": labels,
        "runs": [len(e) for e in by_fold],
        "rmse": [float(np.sqrt(np.mean(e**2))) for e in by_fold],
        "mean": [float(e.mean()) for e in by_fold],
    }
    coefficients = {
        "coefficient": form.names,
        "value": list(fitted.law.coefficients.values()),
        "low": [v.min() for v in without.values()],
        "high": [v.max() for v in without.values()],
        "spread": [v.std() for v in without.values()],
    }
    return CrossValidation(
        rule=rule,
        folds=pd.DataFrame({**folds, **without}),
        coefficients=pd.DataFrame(coefficients),
        rmse=float(np.sqrt(np.mean(error**2))),
        mean=float(error.mean()),
    )


def _folds(rows: Rows, rule: str) -> tuple[list[str], np.ndarray]:
    """The names of the folds, and the number of each row's fold (rows,)."""
    kind, colon, column = rule.partition(":")
    if kind == "group" and colon:
        return _groups(rows, column)
    try:
        count = int(rule)
    except ValueError as e:
        raise errors.UserError(f"--cross_validate is {rule!r}, must be a number of folds or group:COLUMN") from e
    cells = pd.DataFrame(dict(rows.columns)).groupby(list(rows.columns), sort=False).ngroup().to_numpy()
    if not 2 <= count <= min(cells.max() + 1, _MOST):
        raise errors.UserError(
            f"--cross_validate {rule}: {cells.max() + 1} different points can be divided into 2 to"
            f" {min(cells.max() + 1, _MOST)} folds"
        )
    fold_of_cell = np.random.default_rng(0).permutation(np.arange(cells.max() + 1) % count)
    return [str(i + 1) for i in range(count)], fold_of_cell[cells]


def _groups(rows: Rows, column: str) -> tuple[list[str], np.ndarray]:
    values = rows.columns[column] if column in rows.columns else rows.table.get(column)
    if values is None:
        raise errors.UserError(f"--cross_validate group:{column}: there is no column {column!r}")
    of, names = pd.factorize(pd.Series(np.asarray(values)), sort=True, use_na_sentinel=False)
    if not 2 <= len(names) <= _MOST:
        raise errors.UserError(
            f"--cross_validate group:{column}: {len(names)} different values, must be 2 to {_MOST:,} groups"
        )
    return [f"{name:g}" if isinstance(name, float) else str(name) for name in names], of
