"""Identifiability: coefficients that a fit returns but the rows do not determine, and sentences that say why."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from moe_jax.laws.bootstrap import Resampling, resample
from moe_jax.laws.forms import Form
from moe_jax.laws.intervals import central
from moe_jax.laws.law import Identifiability
from moe_jax.laws.levenberg_marquardt import descend
from moe_jax.laws.objective import Problem

RATIO = 10.0  # a positive coefficient whose interval spans more than this factor is not identified
_NEAR_BOUND = 1e-3
_MOST_RUNS = 500  # above this no single run decides much, and a fit without each takes long


def identify(
    problem: Problem, theta: np.ndarray, free: np.ndarray, intervals: Mapping, resampling: Resampling
) -> Identifiability:
    """Which coefficients the rows do not determine, and why.

    theta, free: (coefficients,), the optimum and True where the fit could move it; intervals: by name.

    A fitted coefficient is not identified if its interval spans more than a factor of RATIO (positive ones), holds zero
    or is wider than its value (others), or if it ended at a bound of the search. A fixed one is set free in a fit of
    its own, without penalty: if the same holds there, the data could not have chosen the fixed value."""
    form = problem.form
    names, sentences = [], []
    values = form.outer(theta)
    low, high = form.bounds()
    for i, name in enumerate(form.names):
        if free[i]:
            if at_bound(theta[i], low[i], high[i]):
                why = f"it ran to the bound of the search ({values[name]:.3g})"
            else:
                why = reason_unidentified(form, name, float(values[name]), intervals.get(name))
            if why:
                names.append(name)
                sentences.append(f"{name} is not identified: {why}.")
        elif resampling.samples:
            why = _reason_if_freed(problem, theta, free, i, resampling)
            if why:
                names.append(name)
                sentences.append(
                    f"{name} was fixed at {values[name]:.4g}, not measured, and these rows could not choose it: {why}."
                )
    if (problem.objective.l1 or problem.objective.l2) and intervals:
        sentences += _pulled_by_penalty(problem, theta, free, intervals)
    return Identifiability(tuple(names), tuple(sentences))


def reason_unidentified(form: Form, name: str, value: float, interval: tuple[float, float] | None) -> str | None:
    """Why an interval leaves a coefficient undetermined; None where it does not, or where there is no interval."""
    if interval is None:
        return None
    low, high = interval
    if form.coefficients[name].positive:
        floor, ceiling = form.coefficients[name].bounds
        if low < floor * 1.01:
            return f"anything from {floor if floor > 1e-6 else 0:.3g} to {high:.3g} fits about as well"
        if high > ceiling / 1.01:
            return f"anything above {low:.3g} fits about as well"
        return (
            f"its interval {low:.3g} to {high:.3g} spans a factor of {high / low:.3g}" if high > RATIO * low else None
        )
    if low <= 0 <= high:
        return f"its interval {low:.3g} to {high:.3g} holds zero"
    return f"its interval {low:.3g} to {high:.3g} is wider than its value" if high - low > abs(value) else None


def at_bound(theta: float, low: float, high: float) -> bool:
    """True where a coordinate of the optimiser ended at a bound of its search."""
    return min(theta - low, high - theta) < _NEAR_BOUND


def rank(problem: Problem, theta: np.ndarray, free: np.ndarray) -> int:
    """How many independent directions of the free coefficients change the losses of the rows, at theta."""
    _, _, curvature, _ = problem.normal_equations(theta[None], np.ones((1, len(problem.losses))))
    matrix = curvature[0][np.ix_(free, free)]
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    eigenvalues = np.linalg.eigvalsh(matrix * scale[:, None] * scale)
    return int((eigenvalues > 1e-12).sum())


def fit_warnings(starts: int, at_best: int, errors: Mapping, n_fit: int, n_free: int) -> tuple[str, ...]:
    """Warnings about the fit as a whole: few runs, few starts at the best optimum, an error above the noise.

    errors: of the law, nats; n_fit, n_free: rows and coefficients fitted."""
    said = []
    if n_fit < 2 * n_free:
        said.append(
            f"{n_fit} runs for {n_free} coefficients: the fit follows single runs, and the intervals are too narrow."
        )
    if at_best < 3 <= starts:
        said.append(
            f"Only {at_best} of {starts} starts reached the best optimum: a better one may exist; try more --starts."
        )
    if "noise" in errors and errors["rmse_fit"] > 2 * errors["noise"]:
        said.append(
            f"Repeated runs agree to {errors['noise']:.4f} nats and the law misses them by {errors['rmse_fit']:.4f}:"
            " the rest is the law's error, not noise."
        )
    return tuple(said)


def without_each(problem: Problem, theta: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The optimum without each row in turn, (rows, coefficients)."""
    rows = len(problem.losses)
    others = np.ones((rows, rows), np.uint8)
    np.fill_diagonal(others, 0)
    return descend(problem, np.tile(theta, (rows, 1)), others, free).theta


def single_run_warnings(problem: Problem, theta: np.ndarray, free: np.ndarray, names) -> tuple[str, ...]:
    """Warnings about single runs that decide a coefficient: more than half of its jackknife variance comes from one."""
    if len(names) > _MOST_RUNS:
        return ()
    form, others = problem.form, without_each(problem, theta, free)
    squares = (others - others.mean(0)) ** 2
    share = np.where(free, squares / np.maximum(squares.sum(0), 1e-300), 0.0)
    said = []
    for i in np.flatnonzero(share.max(0) > 0.5):
        run, k = int(share[:, i].argmax()), form.names[i]
        before, after = form.outer(theta)[k], form.outer(others[run])[k]
        said.append(
            f"One run makes {share[run, i]:.0%} of the uncertainty of {k}: without {names[run]} it is {after:.4g}"
            f" instead of {before:.4g}."
        )
    return tuple(said)


def _reason_if_freed(
    problem: Problem, theta: np.ndarray, free: np.ndarray, index: int, resampling: Resampling
) -> str | None:
    freed = free.copy()
    freed[index] = True
    bare = problem.at(l1=0.0, l2=0.0)
    best = descend(bare, theta[None], None, freed).theta[0]
    form, name = problem.form, problem.form.names[index]
    few = replace(resampling, samples=min(resampling.samples, 256))
    low, high = form.bounds()
    if at_bound(best[index], low[index], high[index]):
        return f"left free, without penalty, it runs to the bound of the search ({float(form.outer(best)[name]):.3g})"
    interval = central(resample(bare, best, freed, few), few.level)[name]
    if why := reason_unidentified(form, name, float(form.outer(best)[name]), interval):
        return f"left free, without penalty, {why}"
    return None


def _pulled_by_penalty(problem: Problem, theta: np.ndarray, free: np.ndarray, intervals: Mapping) -> list[str]:
    """A warning about coefficients that the penalty decides: those whose value without it lies outside the interval."""
    form, bare = problem.form, problem.at(l1=0.0, l2=0.0)
    best = descend(bare, theta[None], None, free).theta[0]
    without = form.outer(best)
    moved = [k for i, k in enumerate(form.names) if free[i] and not intervals[k][0] <= without[k] <= intervals[k][1]]
    if not moved:
        return []
    columns = dict(zip(form.symbols, problem.columns, strict=True))
    rmse = [np.sqrt(np.mean((form.loss(columns, form.outer(t)) - problem.losses) ** 2)) for t in (theta, best)]
    values = ", ".join(f"{k} {form.outer(theta)[k]:.4g} → {without[k]:.4g}" for k in moved)
    return [
        f"The penalty, not the data, sets {', '.join(moved)}: without it {values},"
        f" and RMSE {rmse[0]:.4f} → {rmse[1]:.4f}."
    ]
