"""Laws without a form: parabolas through runs of one budget (Hoffmann et al. 2022, approach 2), and the surface over
size and sparsity of Abnar et al. 2025 (Eq. 8), its degrees chosen by cross-validation.

Both are linear least squares in ln N, so they need no starts; both refuse to call a maximum, or the end of the data, an
optimum."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_jax import errors

_DEGREES = range(5)  # the paper's grid: 0 to 4 for each of the three sums


@dataclass(frozen=True)
class Parabolas:
    """table: a row for each budget, N, tokens and loss at the minimum; usable: opens upward, minimum inside the runs.

    N* = exp(intercept) · C^exponent over usable budgets, interval: central 80% of resampled runs. NaN with fewer than
    two."""

    table: pd.DataFrame
    exponent: float
    intercept: float
    interval: tuple[float, float]

    def optimal_size(self, flops):
        return np.exp(self.intercept) * np.asarray(flops, float) ** self.exponent


def parabolas(
    N: np.ndarray,
    tokens: np.ndarray,
    flops: np.ndarray,
    loss: np.ndarray,
    *,
    budgets: Sequence[float] | None = None,
    tolerance: float = 0.1,
    samples: int = 1000,
    seed: int = 0,
) -> Parabolas:
    """One parabola of loss in ln N for each budget, and the power law through their minima. Arrays are (runs,).

    budgets: default the distinct values of flops; a run belongs to the nearest budget if within `tolerance` of it.
    """
    x, y, u = np.log(N), np.asarray(loss, float), np.log(tokens)
    budgets = np.unique(flops) if budgets is None else np.asarray(budgets, float)
    nearest = np.abs(np.log(flops)[:, None] - np.log(budgets)).argmin(1)
    near = np.abs(np.asarray(flops) / budgets[nearest] - 1) <= tolerance
    groups = {i: np.flatnonzero(near & (nearest == i)) for i in range(len(budgets))}
    groups = {i: g for i, g in groups.items() if len(np.unique(x[g])) >= 3}
    if not groups:
        raise errors.UserError("no budget has runs of three sizes: there is no parabola to fit")

    rows = []
    for i, g in groups.items():
        lowest, at, curvature = _minimum(x[g], y[g])
        inside = x[g].min() < at < x[g].max()
        slope, level = np.polyfit(x[g], u[g], 1)  # of one budget, D follows N along a line in logarithms
        rows.append(
            {
                "flops": budgets[i],
                "runs": len(g),
                "N": np.exp(at),
                "tokens": np.exp(level + slope * at),
                "loss": lowest,
                "usable": bool(curvature > 0 and inside),
            }
        )
    table = pd.DataFrame(rows)
    rng = np.random.default_rng(seed)
    exponents = [_power_law(*_resampled(rng, groups, budgets, x, y))[0] for _ in range(samples)]
    exponents = np.array(exponents)[np.isfinite(exponents)]
    interval = tuple(map(float, np.quantile(exponents, [0.1, 0.9]))) if len(exponents) else (np.nan, np.nan)
    good = table[table["usable"]]
    exponent, intercept = _power_law(np.log(good["flops"].to_numpy()), np.log(good["N"].to_numpy()))
    return Parabolas(table, exponent, intercept, interval)


def _minimum(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """(y at the extremum, x of it, curvature) of the least-squares parabola; NaN where there is none."""
    middle = x.mean()
    a, b, c = np.polyfit(x - middle, y, 2)
    if a == 0:
        return np.nan, np.nan, 0.0
    return c - b**2 / (4 * a), middle - b / (2 * a), a


def _resampled(rng, groups, budgets, x, y):
    """(ln C, ln N*) of the usable budgets of one bootstrap sample, runs drawn within each budget."""
    at = []
    for i, g in groups.items():
        drawn = rng.choice(g, len(g))
        if len(np.unique(x[drawn])) < 3:
            continue
        _, best, curvature = _minimum(x[drawn], y[drawn])
        if curvature > 0 and x[g].min() < best < x[g].max():
            at.append((np.log(budgets[i]), best))
    return np.array(at).reshape(-1, 2).T


def _power_law(log_c: np.ndarray, log_n: np.ndarray) -> tuple[float, float]:
    if len(np.unique(log_c)) < 2:
        return np.nan, np.nan
    exponent, intercept = np.polyfit(log_c, log_n, 1)
    return float(exponent), float(intercept)


@dataclass(frozen=True)
class Surface:
    """L = Σ a_i n^i + Σ b_i s^i + Σ c_i (n s)^i + d with n = ln N, s = −ln(1 − S), for one budget."""

    degrees: tuple[int, int, int]
    weights: np.ndarray  # a_1 …, b_1 …, c_1 …, d
    rmse_fit: float
    rmse_cv: float  # of runs left out
    correlation_cv: float  # Pearson, between measured and predicted of runs left out: the paper's check

    def loss(self, N, S) -> np.ndarray:
        n, s = np.broadcast_arrays(np.log(N), -np.log1p(-np.asarray(S, float)))
        return (_features(n.ravel(), s.ravel(), self.degrees) @ self.weights).reshape(n.shape)

    def best_size(self, S, low: float, high: float) -> np.ndarray:
        """N of lowest loss within low..high for each S; NaN where it lies at either end: then it is not an optimum."""
        N = np.geomspace(low, high, 2001)
        best = self.loss(N[:, None], np.atleast_1d(S)).argmin(0)
        return np.where((best == 0) | (best == len(N) - 1), np.nan, N[best])


def surface(N: np.ndarray, S: np.ndarray, loss: np.ndarray, *, folds: int = 10, seed: int = 0) -> Surface:
    """The surface of the runs (N, S, loss) of one budget; the degrees are those with the lowest error on left-out
    runs."""
    n, s, y = np.log(N), -np.log1p(-np.asarray(S, float)), np.asarray(loss, float)
    fold = np.random.default_rng(seed).permutation(len(y)) % folds
    smallest = min(np.bincount(fold, minlength=folds).max(), len(y))
    best = None
    for degrees in itertools.product(_DEGREES, repeat=3):
        X = _features(n, s, degrees)
        if X.shape[1] > len(y) - smallest:
            continue
        predicted = np.empty_like(y)
        for k in range(folds):
            predicted[fold == k] = X[fold == k] @ _solve(X[fold != k], y[fold != k])
        error = np.sqrt(np.mean((predicted - y) ** 2))
        # a more complex surface must earn its terms: 1% in the error of left-out runs
        if best is None or error < (0.99 if X.shape[1] > best[3] else 1.0) * best[0]:
            best = (error, degrees, predicted, X.shape[1])
    if best is None or len(y) < folds:
        raise errors.UserError(f"{len(y)} runs of this budget cannot carry a surface with {folds} folds")
    error, degrees, predicted, _ = best
    X = _features(n, s, degrees)
    weights = _solve(X, y)
    correlation = float(np.corrcoef(predicted, y)[0, 1]) if predicted.std() > 0 else np.nan
    return Surface(degrees, weights, float(np.sqrt(np.mean((X @ weights - y) ** 2))), float(error), correlation)


def _features(n: np.ndarray, s: np.ndarray, degrees: tuple[int, int, int]) -> np.ndarray:
    """(runs, terms)."""
    columns = [x**i for x, degree in zip((n, s, n * s), degrees, strict=True) for i in range(1, degree + 1)]
    return np.stack([*columns, np.ones_like(n)], axis=1)


def _solve(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    scale = np.abs(X).max(0)
    scale[scale == 0] = 1.0
    return np.linalg.lstsq(X / scale, y, rcond=1e-13)[0] / scale
