"""Fitting: rows and an objective in, a Law with its doubts out.

fitted = laws.fit("results.csv", law="krajewski2024")
fitted.law.coefficients["alpha"], fitted.law.intervals["alpha"], fitted.law.predict({"N": 1e9, "D": 2e10, "G": 8})
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws import doubt, forms, starts
from moe_jax.laws.bootstrap import Resampling, intervals, resample
from moe_jax.laws.forms import Form
from moe_jax.laws.law import Law
from moe_jax.laws.objective import Objective, Problem
from moe_jax.laws.optimise import search
from moe_jax.laws.rows import Rows, load, select, spread_of_replicates
from moe_jax.laws.splits import Split


@dataclass(frozen=True)
class Fit:
    """A Law and the runs behind it. rows: all runs that took part; held_out: True where the fit did not see the run."""

    law: Law
    rows: Rows
    held_out: np.ndarray
    predicted: np.ndarray  # nats, of every row
    objective: Objective

    @property
    def residuals(self) -> np.ndarray:
        """Measured − predicted, nats."""
        return self.rows.losses - self.predicted

    @property
    def train(self) -> Rows:
        """The rows that were fitted."""
        return self.rows.take(np.flatnonzero(~self.held_out))

    @property
    def problem(self) -> Problem:
        """What was minimised, to be asked again: profiles, other weights."""
        train = self.train
        return Problem(self.law.form, train.columns, train.losses, self.objective)


def fit(
    table: pd.DataFrame | Mapping | str | os.PathLike,
    law: str = "krajewski2024",
    *,
    loss: str = "eval_loss",
    columns: Mapping[str, str] | None = None,
    where: str = "",
    best_of: str = "",
    objective: Objective | None = None,
    fix: Mapping[str, float] | None = None,
    start: int | Mapping[str, list] = starts.DEFAULT,
    split: Split | None = None,
    resampling: Resampling | None = None,
) -> Fit:
    """Fits a declared form and says what the data do not determine.

    table: a results.csv path, a DataFrame, or a mapping of equal-length columns.
    columns: a symbol of the form (N), or a new column -> a column or an expression ("`FLOP` / (6 * `Model Size`)").
    where: a condition on rows; best_of: a column of which each cell keeps the best run.
    fix: coefficients held at a value. start: how many starts (the published coefficients, and points spread over the
    declared boxes), or a grid {coefficient: values}. split: rows dropped or held out. resampling: the bootstrap,
    Resampling(samples=0) for none. The result is a function of the arguments alone: all randomness has a fixed seed.
    Raises errors.UserError, one sentence, for data or options that cannot be meant.
    """
    form, objective, split = forms.get(law), objective or Objective(), split or Split()
    fix, resampling = dict(fix or {}), resampling or Resampling()
    frame, digest = load(table)
    rows = select(frame, form, loss, columns, where, best_of)
    rows, held_out, dropped = split.apply(rows)
    train = rows.take(np.flatnonzero(~held_out))
    free = _free(form, fix)
    _refuse_too_little(form, train, free, fix)

    problem = Problem(form, train.columns, train.losses, objective)
    begin = starts.choose(problem, start, fix)
    theta, value, at_best = search(problem, begin, free)
    if not np.isfinite(value):
        raise errors.UserError(f"no start of {len(begin)} gave {law} a finite loss on these rows; are the units right?")
    coefficients = _named(form, theta)
    samples = resample(problem, theta, free, resampling)

    predicted = form.loss(rows.columns, coefficients)
    noise, cells = spread_of_replicates(rows)
    wrong = _errors(rows.losses - predicted, held_out, noise, cells)
    bands = intervals(form, samples, coefficients, resampling.level)
    unidentified, doubts = doubt.identify(form, problem, theta, free, samples, bands, resampling)
    if resampling.samples:
        doubts += doubt.single_runs(problem, theta, free, train.names)
    doubts += doubt.small_sample(len(begin), at_best, wrong, int((~held_out).sum()), int(free.sum()))
    fitted = Law(
        form=form,
        coefficients=coefficients,
        intervals=bands,
        level=resampling.level,
        samples=samples,
        errors=wrong,
        objective={
            **objective.to_json(),
            "value": value,
            "bootstrap": resampling.to_json(),
            **split.to_json(),
        },
        selection={"columns": dict(columns or {}), "where": where, "best_of": best_of, **split.to_json()},
        given=fix,
        fixed=rows.context,
        columns=dict(rows.sources),
        loss=loss,
        range={rows.sources[s]: (float(v.min()), float(v.max())) for s, v in train.columns.items()},
        n_fit=len(train),
        n_holdout=int(held_out.sum()),
        data_sha256=digest,
        unidentified=unidentified,
        doubts=doubts,
        notes=(*rows.notes, *dropped),
        starts=len(begin),
        starts_at_best=at_best,
    )
    return Fit(fitted, rows, held_out, predicted, objective)


def rows_of(law: Law, table: pd.DataFrame) -> tuple[Rows, np.ndarray]:
    """The rows that a law was fitted to, and which of them were held out, taken from `table` as the fit took them.

    Raises UserError for a law that was not fitted, or rows that it could not be fitted to."""
    asked = law.selection
    if not asked:
        raise errors.UserError(f"{law.law} has coefficients that were given, not fitted to rows")
    rows = select(table, law.form, law.loss, asked["columns"], asked["where"], asked["best_of"])
    rows, held_out, _ = Split(drop=asked["drop"], holdout=asked["holdout"]).apply(rows)
    return rows, held_out


def _free(form: Form, fix: Mapping[str, float]) -> np.ndarray:
    """(coefficients,) True where the fit may move the coefficient."""
    for name, value in fix.items():
        if name not in form.coefficients:
            raise errors.UserError(f"{form.name} has no coefficient {name!r} to fix; it has {', '.join(form.names)}")
        if form.coefficients[name].positive and not value > 0:
            raise errors.UserError(f"{name} = {value} cannot be fixed: in {form.name} it is positive")
    return np.array([name not in fix for name in form.names])


def _refuse_too_little(form: Form, rows: Rows, free: np.ndarray, fix: Mapping) -> None:
    if len(rows) < free.sum():
        raise errors.UserError(
            f"{len(rows)} rows cannot carry {free.sum()} coefficients of {form.name}: "
            f"train more runs, fix some with --fix, or take a law with fewer"
        )
    single = [s for s, v in rows.columns.items() if len(np.unique(v)) < 2]
    if not single:
        return
    at = form.inner({**next(iter(form.published.values())), **fix})
    if doubt.rank(Problem(form, rows.columns, rows.losses, Objective(huber=np.inf)), at, free) < free.sum():
        said = " and ".join(f"{rows.sources[s]} has one value only ({rows.columns[s][0]:g})" for s in single)
        raise errors.UserError(
            f"{said}, and {form.name} needs it to vary: add runs, fix what depends on it with"
            " --fix, or take a law without it"
        )


def _named(form: Form, theta: np.ndarray) -> dict[str, float]:
    return {k: float(v) for k, v in form.outer(theta).items()}


def _errors(residuals: np.ndarray, held_out: np.ndarray, noise: float | None, cells: int) -> dict[str, float]:
    """Root mean squares in nats; noise is the scatter of replicated cells, which no law can beat."""

    def rms(r):
        return float(np.sqrt(np.mean(r**2)))

    out = {"rmse_fit": rms(residuals[~held_out]), "max_fit": float(np.abs(residuals[~held_out]).max())}
    if held_out.any():
        out |= {"rmse_holdout": rms(residuals[held_out]), "mean_holdout": float(residuals[held_out].mean())}
    if noise is not None:
        out |= {"noise": noise, "replicated_cells": cells}
    return out
