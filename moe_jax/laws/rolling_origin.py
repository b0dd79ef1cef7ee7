"""Rolling-origin held-outs: a law fitted to the cheaper rows predicts the dearer ones, at several origins.

They show how far the form itself errs beyond its data (Tashman 2000, International Journal of Forecasting 16:437), of
which the bootstrap knows nothing: all its samples have the same form."""

from collections.abc import Mapping

import numpy as np

from moe_jax.laws.extrapolation import Extrapolation, distance, growth, measures
from moe_jax.laws.levenberg_marquardt import descend
from moe_jax.laws.objective import Problem
from moe_jax.laws.rows import Rows

_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the rows, the cheapest, that the origins fit
_SAME_COST = 1.1  # rows within this factor are of one budget, which no origin divides
_STEP = 1e-4  # of the optimiser's coordinates, for derivatives


def estimate(problem: Problem, theta: np.ndarray, free: np.ndarray, rows: Rows) -> Extrapolation | None:
    """The law's error beyond its data; None where the rows have no measure of cost or too few of them for an origin.

    theta, free: (coefficients,), the optimum of all rows, where each origin's fit starts, and True where a fit may move
    it. Of each origin's squared errors the noise of single runs and the variance of its own coefficients are taken off:
    prediction bands have terms for these already."""
    costs = measures(rows.table, rows.columns, problem.form.cost)
    if not costs:
        return None
    cost = next(iter(costs.values()))
    origins = _origins(cost, rows, int(free.sum()))
    if not len(origins):
        return None
    found = descend(problem, np.tile(theta, (len(origins), 1)), origins.astype(np.uint8), free)
    noise = np.sum((rows.losses - _losses(problem, theta)) ** 2) / max(len(rows) - free.sum(), 1)
    squares, predicted, farthest = [], 0, 0.0
    for fitted, at in zip(origins, found.theta, strict=True):
        error = rows.losses - _losses(problem, at)
        if not np.isfinite(error).all():
            continue
        away = _distance(cost, rows, fitted, problem.form.shares)[~fitted]
        variance = noise + _variance(problem, at, free, fitted, error)[~fitted]
        squares.append(np.sum(error[~fitted] ** 2 - variance) / np.sum(growth(away, _span(cost[fitted])) ** 2))
        predicted, farthest = predicted + len(away), max(farthest, float(away.max()))
    if not squares:
        return None
    return Extrapolation(
        curvature=float(np.sqrt(max(np.mean(squares), 0.0))),
        origins=len(squares),
        predicted=predicted,
        farthest=farthest,
        span=_span(cost),
        reach={measure: float(values.max()) for measure, values in costs.items()},
    )


def _origins(cost: np.ndarray, rows: Rows, n_free: int) -> np.ndarray:
    """(origins, rows) True for the cheaper rows, which an origin fits: at least twice as many as coefficients, and more
    than one value of each axis that varies."""
    order, masks = np.sort(cost), {}
    varying = [v for v in rows.columns.values() if np.ptp(v) > 0]
    for share in _SHARES:
        fitted = cost <= _SAME_COST * order[int(np.ceil(share * len(cost))) - 1]
        enough = fitted.sum() >= max(2 * n_free, n_free + 3) and all(np.ptp(v[fitted]) > 0 for v in varying)
        if enough and not fitted.all():
            masks[int(fitted.sum())] = fitted
    return np.array(list(masks.values()))


def _span(cost: np.ndarray) -> float:
    """ln(dearest / cheapest)."""
    return float(np.log(cost.max() / cost.min()))


def _distance(cost: np.ndarray, rows: Rows, fitted: np.ndarray, shares) -> np.ndarray:
    """(rows,) how far each lies beyond the rows fitted."""
    ranges = {s: (v[fitted].min(), v[fitted].max()) for s, v in rows.columns.items()}
    return distance({"": cost}, {"": cost[fitted].max()}, rows.columns, ranges, shares)


def _variance(problem: Problem, theta, free, fitted, error) -> np.ndarray:
    """(rows,) variance of the prediction, nats², from the coefficients' covariance by least squares on the rows
    fitted."""
    slopes = []
    for i in np.flatnonzero(free):
        step = np.where(np.arange(len(theta)) == i, _STEP, 0.0)
        slopes.append((_losses(problem, theta + step) - _losses(problem, theta - step)) / (2 * _STEP))
    jacobian = np.array(slopes).T
    jacobian = jacobian / np.maximum(np.linalg.norm(jacobian[fitted], axis=0), 1e-300)
    scale = np.sum(error[fitted] ** 2) / max(fitted.sum() - free.sum(), 1)
    covariance = scale * np.linalg.pinv(jacobian[fitted].T @ jacobian[fitted], rcond=1e-12, hermitian=True)
    return np.einsum("rp,pq,rq->r", jacobian, covariance, jacobian)


def _losses(problem: Problem, theta: np.ndarray) -> np.ndarray:
    columns: Mapping = dict(zip(problem.form.symbols, problem.columns, strict=True))
    return problem.form.loss(columns, problem.form.outer(theta))
