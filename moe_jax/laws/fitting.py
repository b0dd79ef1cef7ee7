"""Fits a law to a table of losses.

fitted = laws.fit("results.csv", law="krajewski2024")
fitted.law.coefficients["alpha"], fitted.law.intervals["alpha"], fitted.law.identifiability.warnings
fitted.law.predict({"N": 1e9, "D": 2e10, "G": 8})

A law of learning rates or batches is fitted to the best one of each cell (see best_values).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.flops import FORMULAS
from moe_jax.laws import (
    best_values,
    checklist,
    designs,
    identifiability,
    limits,
    rolling_origin,
    row_weights,
    starts,
    uncertainty,
    user_file,
)  # fmt: skip
from moe_jax.laws.bootstrap import Resampling
from moe_jax.laws.extrapolation import Extrapolation
from moe_jax.laws.forms import LOSS, QUANTITIES, Form
from moe_jax.laws.identifiability import Evidence
from moe_jax.laws.law import FitData, FitMethod, Law
from moe_jax.laws.levenberg_marquardt import search
from moe_jax.laws.objective import Objective, Problem
from moe_jax.laws.rows import Rows, load, select, spread_of_replicates
from moe_jax.laws.splits import Split
from moe_jax.laws.uncertainty import Uncertainty


@dataclass(frozen=True)
class Fit:
    """A law and the runs behind it."""

    law: Law
    rows: Rows  # all runs that took part, fitted or held out
    held_out: np.ndarray  # (rows,) True where the fit did not see the run
    predicted: np.ndarray  # (rows,) nats
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
        """The minimisation problem that was solved, for profiles and other weights."""
        train = self.train
        return Problem(self.law.form, train.columns, train.losses, self.objective, train.weights)


def fit(
    table: pd.DataFrame | Mapping | str | os.PathLike,
    law: str = "krajewski2024",
    *,
    loss: str = "eval_loss",
    columns: Mapping[str, str] | None = None,
    where: str = "",
    best_of: str = "",
    weights: str = "",
    sigma: str = "",
    objective: Objective | None = None,
    fix: Mapping[str, float] | None = None,
    start: int | Mapping[str, list] = starts.DEFAULT,
    split: Split | None = None,
    resampling: Resampling | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Fit:
    """Fits a declared form and reports what the data do not determine.

    table: a file (see table_files), a DataFrame, or a mapping of equal-length columns. law: a form's name, or that of a
    file that declares it (see user_file). columns: a symbol (N), or a new column -> a column or an expression
    ("`FLOP` / (6 * `Model Size`)"). where: a condition on rows. best_of: a column; each cell keeps its best run.
    weights, sigma: the column of row weights, or of the standard deviations of the losses (see row_weights).
    fix: coefficients held at a value. start: how many starts, or a grid {coefficient: values}. split: rows dropped or
    held out. resampling: the bootstrap, Resampling(samples=0) for none. progress: is called with a stage, and how many
    of its parts are done, of how many. The result is a function of the arguments alone: randomness has a fixed seed.
    Raises UserError for invalid data or options, and for more rows, starts or samples than limits.py allows."""
    form, split, fix = user_file.find_form(law), split or Split(), dict(fix or {})
    objective, resampling = _objective(form, objective), resampling or Resampling()
    frame, digest = load(table)
    weighting = row_weights.of_options(weights, sigma)
    rows, held_out, dropped = split.apply(_rows(frame, form, loss, columns, where, best_of, weighting))
    train, free = rows.take(np.flatnonzero(~held_out)), _free(form, fix)
    _refuse_too_little(form, train, free, fix)
    _refuse_too_much(len(train), start, resampling)
    clusters = uncertainty.clusters_of(train, resampling.cluster)
    problem = Problem(form, train.columns, train.losses, objective, train.weights)
    begin = starts.choose(problem, start, fix)
    theta, value, at_best = search(problem, begin, free, progress and partial(progress, "starts"))
    _refuse_infinite(value, form, len(begin))
    coefficients = {k: float(v) for k, v in form.outer(theta).items()}
    ended = progress and partial(progress, "bootstrap samples")
    unsure = uncertainty.of(problem, theta, free, resampling, clusters, ended)
    predicted = form.loss(rows.columns, coefficients)
    settings = {**objective.to_json(), "value": value, "bootstrap": resampling.to_json(), **split.to_json()}
    selection = {"columns": dict(columns or {}), "where": where, "best_of": best_of, **split.to_json()}
    fitted = Law(
        form=form,
        coefficients=coefficients,
        fixed_coefficients=fix,
        intervals=unsure.intervals(resampling.level),
        level=resampling.level,
        samples=unsure.samples,
        errors=_errors(form, rows, predicted, held_out),
        data=_data(form, replace(rows, notes=(*rows.notes, *dropped)), train, loss, selection, digest, weighting),
        method=FitMethod(settings, len(begin), at_best, interval_method=unsure.method),
        extrapolation=_extrapolation(problem, theta, free, train) if resampling.samples else None,
    )
    fitted = _with_identifiability(fitted, problem, train.names, theta, free, resampling, unsure)
    return Fit(checklist.filled(fitted, rows), rows, held_out, predicted, objective)


def _data(
    form: Form, rows: Rows, train: Rows, loss: str, selection: Mapping[str, object], sha256: str, weighting: str
) -> FitData:
    """The record of the rows that took part, and of those that were fitted."""
    return FitData(
        columns=dict(rows.sources),
        loss=loss,
        range={rows.sources[s]: (float(v.min()), float(v.max())) for s, v in train.columns.items()},
        largest_run=_largest_run(train.table),
        constants=rows.constants,
        selection=selection,
        design=designs.of(form, train.columns).to_json(),
        n_fit=len(train),
        n_holdout=len(rows) - len(train),
        sha256=sha256,
        notes=rows.notes,
        weights=weighting,
    )


def _extrapolation(problem: Problem, theta: np.ndarray, free: np.ndarray, train: Rows) -> Extrapolation | None:
    """The law's own error beyond its data; None for a law of rates or batches, whose rows are few and no runs."""
    return rolling_origin.estimate(problem, theta, free, train) if problem.form.quantity == LOSS else None


def _largest_run(table: pd.DataFrame) -> dict[str, float]:
    """FLOPs of the dearest row by each formula that the table has, or can be computed from its columns."""
    if "flops_6nd" not in table.columns and {"n_active", "tokens"} <= set(table.columns):
        N, D = (pd.to_numeric(table[column], errors="coerce") for column in ("n_active", "tokens"))
        table = table.assign(flops_6nd=6.0 * N * D)
    found = {}
    for formula in FORMULAS:
        if formula in table.columns:
            flops = pd.to_numeric(table[formula], errors="coerce").max()
            if np.isfinite(flops) and flops > 0:
                found[formula] = float(flops)
    return found


def _with_identifiability(
    law: Law,
    problem: Problem,
    names: Sequence[str],
    theta: np.ndarray,
    free: np.ndarray,
    resampling: Resampling,
    unsure: Uncertainty,
) -> Law:
    """The law with what the rows do not determine, and warnings about the design, single runs and the whole fit."""
    design = designs.of(problem.form, dict(zip(problem.form.symbols, problem.columns, strict=True)))
    evidence = Evidence(problem, theta, free, law.intervals, unsure.accepted, design, unsure.clusters)
    found = identifiability.identify(evidence, resampling)
    warnings = found.warnings + design.warnings()
    if unsure.without is not None:
        warnings += identifiability.single_run_warnings(problem.form, theta, free, unsure.without, names)
    method, n_free = law.method, int(free.sum())
    warnings += identifiability.fit_warnings(method.starts, method.starts_at_best, law.errors, law.data.n_fit, n_free)
    whole = {k: evidence.whole_interval(k) for k in found.unidentified if k in law.intervals}
    return replace(law, identifiability=replace(found, warnings=warnings), intervals={**law.intervals, **whole})


def rows_of(law: Law, table: pd.DataFrame) -> tuple[Rows, np.ndarray]:
    """The rows of `table` that a law was fitted to, and which of them were held out, (rows,) bool.

    Raises UserError for a law that was not fitted, or rows that it could not be fitted to."""
    asked = law.data.selection
    if not asked:
        raise errors.UserError(f"{law.name} has published coefficients; it was not fitted to rows")
    rows = _rows(table, law.form, law.data.loss, asked["columns"], asked["where"], asked["best_of"], law.data.weights)
    rows, held_out, _ = Split(drop=asked["drop"], holdout=asked["holdout"]).apply(rows)
    return rows, held_out


def default_objective(form: Form) -> Objective:
    """The objective of a fit that names none: least squares of logarithms for rates and batches, Huber's for losses."""
    return Objective() if form.quantity == LOSS else Objective(huber=np.inf)


def _rows(
    table: pd.DataFrame, form: Form, loss: str, columns: Mapping | None, where: str, best_of: str, weighting: str
) -> Rows:
    """The rows that a form is fitted to: runs, or for a law of rates or batches the best value of each cell."""
    if form.quantity == LOSS:
        return select(table, form, loss, columns, where, best_of, weighting)
    if weighting:
        raise errors.UserError(f"{weighting} weighs runs, and {form.name} is fitted to the best value of each cell")
    if best_of:
        raise errors.UserError(f"--best-of {best_of} keeps one run of each cell, and {form.name} needs them all")
    return best_values.of_cells(select(table, form, loss, columns, where), form)


def _objective(form: Form, asked: Objective | None) -> Objective:
    """The objective asked, or the default. Raises UserError for a law of rates or batches and an objective that has a
    meaning for losses only."""
    objective = asked or default_objective(form)
    idle = "one_sided" if objective.one_sided != 1 else "weight_exponent" if objective.weight_exponent else None
    if idle and form.quantity != LOSS:
        raise errors.UserError(f"{idle} weighs runs by their loss, and {form.name} gives {QUANTITIES[form.quantity]}")
    return objective


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
            f"{len(rows)} rows cannot determine {free.sum()} coefficients of {form.name}: "
            f"train more runs, fix some with --fix, or take a law with fewer"
        )
    single = [s for s, v in rows.columns.items() if len(np.unique(v)) < 2]
    if not single:
        return
    at = starts.draw(form, 1, fix)[0]
    if identifiability.rank(Problem(form, rows.columns, rows.losses, Objective(huber=np.inf)), at, free) < free.sum():
        said = " and ".join(f"{rows.sources[s]} has one value only ({rows.columns[s][0]:g})" for s in single)
        raise errors.UserError(
            f"{said}, and {form.name} needs it to vary: add runs, fix what depends on it with"
            " --fix, or take a law without it"
        )


def _refuse_too_much(rows: int, start: int | Mapping, resampling: Resampling) -> None:
    limits.refuse_rows(rows)
    if isinstance(start, int):
        limits.refuse_starts(rows, start)
    limits.refuse_samples(rows, resampling.samples)


def _refuse_infinite(value: float, form: Form, begun: int) -> None:
    if not np.isfinite(value):
        raise errors.UserError(
            f"no start of {begun} gave {form.name} a finite loss on these rows; are the units right?"
        )


def _errors(form: Form, rows: Rows, predicted: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Errors of the law in nats, or in logarithms (Form.as_errors). rmse_…: root mean squares; noise: the scatter of
    replicated cells, below which no law gets."""

    def rms(r):
        return float(np.sqrt(np.mean(r**2)))

    residuals = form.as_errors(rows.losses) - form.as_errors(predicted)
    out = {"rmse_fit": rms(residuals[~held_out]), "max_fit": float(np.abs(residuals[~held_out]).max())}
    if held_out.any():
        out |= {"rmse_holdout": rms(residuals[held_out]), "mean_holdout": float(residuals[held_out].mean())}
    noise, cells = spread_of_replicates(replace(rows, losses=form.as_errors(rows.losses)))
    if noise is not None:
        out |= {"noise": noise, "replicated_cells": cells}
    return out
