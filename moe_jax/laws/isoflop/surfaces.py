"""The surface of loss over size and sparsity at one budget (Abnar et al. 2025, Eq. 8).

Its degrees are chosen by cross-validation. Linear least squares needs no starts. A minimum at the end of the data does
not count as an optimum."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe_jax import errors
from moe_jax.laws.intervals import tails

_DEGREES = range(5)  # the paper's grid: 0 to 4 for each of the three sums
_SIZES = 401  # points in ln N among which the lowest of a surface is found


@dataclass(frozen=True)
class Surface:
    """L = Σ a_i n^i + Σ b_i s^i + Σ c_i (n s)^i + d with n = ln N, s = −ln(1 − S), for one budget."""

    degrees: tuple[int, int, int]
    weights: np.ndarray  # a_1 …, b_1 …, c_1 …, d
    sizes: tuple[float, float]  # smallest and largest N of the runs
    sparsities: tuple[float, ...]  # of the runs
    runs: int
    rmse_fit: float  # nats
    rmse_cv: float  # nats, of runs left out
    correlation_cv: float  # Pearson, measured and predicted of runs left out: the paper's check
    samples: np.ndarray  # (samples, weights) from resampled runs, at the same degrees

    def loss(self, N, S) -> np.ndarray:
        """Nats per token; N and S broadcast."""
        n, s = np.broadcast_arrays(np.log(N), -np.log1p(-np.asarray(S, float)))
        return (_features(n.ravel(), s.ravel(), self.degrees) @ self.weights).reshape(n.shape)

    def best_size(self, S, low: float | None = None, high: float | None = None) -> np.ndarray:
        """N of lowest loss within low..high (default: the sizes of the runs) for each S; NaN where it is an end."""
        N = np.geomspace(low or self.sizes[0], high or self.sizes[1], 2001)
        best = self.loss(N[:, None], np.atleast_1d(S)).argmin(0)
        return np.where((best == 0) | (best == len(N) - 1), np.nan, N[best])

    def best_sparsity(self, N, level: float = 0.8) -> list[Mapping[str, object]]:
        """The S of lowest loss for each N, among the sparsities of the runs; each as `best` gives it."""
        return [self._lowest(np.atleast_1d(n), level) for n in np.atleast_1d(N)]

    def best(self, level: float = 0.8) -> Mapping[str, object]:
        """The lowest point over the sizes and sparsities of the runs: N, S, loss (nats), each (value, low, high).

        at_edge names those of N and S that lie at the end of the data, where they are no optimum."""
        return self._lowest(np.geomspace(*self.sizes, _SIZES), level)

    def _lowest(self, N: np.ndarray, level: float) -> Mapping[str, object]:
        points = [a.ravel() for a in np.meshgrid(N, self.sparsities, indexing="ij")]
        X = _features(np.log(points[0]), -np.log1p(-points[1]), self.degrees)
        every = X @ np.vstack([self.weights, self.samples]).T  # (points, 1 + samples)
        at = every.argmin(0)
        found = {"N": points[0][at], "S": points[1][at], "loss": every.min(0)}
        edges = []
        if len(N) > 1 and found["N"][0] in (N[0], N[-1]):
            edges.append("N")
        if found["S"][0] in (self.sparsities[0], self.sparsities[-1]):
            edges.append("S")
        intervals = {
            k: (float(v[0]), *map(float, np.quantile(v[1:], tails(level)) if len(v) > 1 else (np.nan, np.nan)))
            for k, v in found.items()
        }
        return {**intervals, "at_edge": tuple(edges)}


def fit(
    N: np.ndarray, S: np.ndarray, loss: np.ndarray, *, folds: int = 10, samples: int = 100, seed: int = 0
) -> Surface:
    """The surface of the runs of one budget; N, S and loss (nats) are (runs,).

    The degrees are those with the lowest error on left-out runs. samples: fits to resampled runs, 100 as in the paper.
    Raises UserError for too few runs."""
    S = np.asarray(S, float)
    n, s, y = np.log(N), -np.log1p(-S), np.asarray(loss, float)
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
        # A surface with more terms must lower the error of left-out runs by 1%.
        if best is None or error < (0.99 if X.shape[1] > best[3] else 1.0) * best[0]:
            best = (error, degrees, predicted, X.shape[1])
    if best is None or len(y) < folds:
        raise errors.UserError(f"{len(y)} runs of this budget cannot determine a surface with {folds} folds")
    error, degrees, predicted, _ = best
    X = _features(n, s, degrees)
    weights = _solve(X, y)
    rng = np.random.default_rng(seed)
    resampled = [_solve(X[i], y[i]) for i in (rng.integers(len(y), size=len(y)) for _ in range(samples))]
    correlation = float(np.corrcoef(predicted, y)[0, 1]) if predicted.std() > 0 else np.nan
    return Surface(
        degrees=degrees,
        weights=weights,
        sizes=(float(np.min(N)), float(np.max(N))),
        sparsities=tuple(map(float, np.unique(S))),
        runs=len(y),
        rmse_fit=float(np.sqrt(np.mean((X @ weights - y) ** 2))),
        rmse_cv=float(error),
        correlation_cv=correlation,
        samples=np.array(resampled).reshape(-1, len(weights)),
    )


def _features(n: np.ndarray, s: np.ndarray, degrees: tuple[int, int, int]) -> np.ndarray:
    """(runs, terms)."""
    columns = [x**i for x, degree in zip((n, s, n * s), degrees, strict=True) for i in range(1, degree + 1)]
    return np.stack([*columns, np.ones_like(n)], axis=1)


def _solve(X: np.ndarray, y: np.ndarray) -> np.ndarray:
    scale = np.abs(X).max(0)
    scale[scale == 0] = 1.0
    return np.linalg.lstsq(X / scale, y, rcond=1e-13)[0] / scale
