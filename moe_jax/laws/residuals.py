"""The noise of the rows, from the residuals of a fit: what a bootstrap of residuals and a likelihood need."""

from dataclasses import dataclass

import numpy as np

from moe_jax.laws.objective import Problem

MOST_LEFT_OUT = 500  # rows that are left out in turn: above this no single row decides much, and it takes long
_HIGHEST_LEVERAGE = 0.95
_RANK = 1e-8  # singular values, or columns, below this share of the largest carry nothing but rounding
_STEP = 1e-5  # of a coordinate in a difference quotient
_TREND = 3.29  # standard errors of a rank correlation: 0.1% of tables without a trend exceed it
_LEAST_ROWS = 20  # for a trend to be looked for


@dataclass(frozen=True)
class Noise:
    """An estimate of the noise of each row (rows,), in the objective's space, and how well it is known.

    freedom: rows − directions of the coefficients that change the losses, at least 1."""

    values: np.ndarray
    leverage: np.ndarray  # (rows,) in [0, 1): how far the row draws the law to itself
    freedom: int


def jacobian(problem: Problem, theta: np.ndarray, free: np.ndarray) -> np.ndarray:
    """d law / d θ on the rows, (rows, free coefficients), by central differences, in the objective's space."""
    steps = _STEP * np.eye(len(theta))[free]
    low, high = problem.form.bounds()
    upper, lower = np.clip(theta + steps, low, high), np.clip(theta - steps, low, high)
    width = (upper - lower).sum(1)
    rise = [problem.predicted(u) - problem.predicted(v) for u, v in zip(upper, lower, strict=True)]
    return np.stack(rise, axis=1) / width


def noise(problem: Problem, theta: np.ndarray, free: np.ndarray, without: np.ndarray | None) -> Noise:
    """The noise of each row at an optimum theta (coefficients,).

    A fit bends to its rows, so that residuals are smaller than the noise: by √(1 − h) in least squares, h a row's
    leverage; least absolute deviations pass through as many rows as there are coefficients. without (rows,
    coefficients): the optima without each row; the distance of a row from the law that never saw it, times √(1 − h), is
    right for both. None (large tables): residual / √(1 − h)."""
    J = jacobian(problem, theta, free) * np.sqrt(problem.weights)[:, None]
    lengths = np.sqrt((J**2).sum(0))
    kept = np.isfinite(lengths) & (lengths > _RANK * lengths.max(initial=0.0))
    U, s, _ = np.linalg.svd(J[:, kept] / lengths[kept], full_matrices=False)
    U = U[:, s > _RANK * s.max(initial=0.0)]
    leverage = np.minimum((U**2).sum(1), _HIGHEST_LEVERAGE)
    values = (problem.target - problem.predicted(theta)) / np.sqrt(1 - leverage)
    if without is not None:
        most = 1.5 * np.abs(values).max()  # a fit that needs the row may say anything there
        unseen = problem.target - np.array([problem.predicted(t)[i] for i, t in enumerate(without)])
        values = np.clip(np.nan_to_num(unseen, nan=most) * np.sqrt(1 - leverage), -most, most)
    return Noise(values, leverage, max(1, len(values) - U.shape[1]))


def is_alike(problem: Problem, theta: np.ndarray, values: np.ndarray) -> bool:
    """True where the noise (rows,) may be the same in all rows: equal weights, and its size follows no axis and not the
    loss, as far as ranks tell."""
    if np.ptp(problem.weights) > 1e-9:
        return False
    if len(values) < _LEAST_ROWS:
        return True
    size = _ranks(np.abs(values))
    trends = [np.corrcoef(size, _ranks(x))[0, 1] for x in (*problem.columns, problem.predicted(theta)) if np.ptp(x) > 0]
    return max(map(abs, trends), default=0.0) * np.sqrt(len(values) - 1) < _TREND


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks; ties share their mean."""
    _, place, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]
