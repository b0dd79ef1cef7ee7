"""Other laws that the rows accept about as well as the optimum: each coefficient is moved far, the others follow.

A bootstrap starts at the optimum and stays where the objective lets it go; a profile asks what else would have fitted.
Of an optimum with c at a wall, A and alpha look certain: the wall holds them. A fit with c held elsewhere shows that
they are not."""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from moe_jax.laws.forms import Form
from moe_jax.laws.levenberg_marquardt import EASY, minimise
from moe_jax.laws.objective import Problem
from moe_jax.laws.residuals import Noise, jacobian

LEVEL = 0.8  # of the likelihood region whose points count as accepted
RATIO = 10.0  # a positive coefficient is not identified if it may change by more than this factor
_MOST_MOVED = 6.0  # of a coordinate in the start of a profile's fit
_WINDOW = 0.5  # of the noise's size: where the density at zero is read for a small δ
_NEAR_WALL = 1e-3  # of a bound
_TOLERANCE, _STEPS = 1e-5, 60  # a law that fits well enough before its fit has ended is accepted all the same
_RANK = 1e-12  # eigenvalues of the scaled information below this share are zero but for rounding


@dataclass(frozen=True)
class Accepted:
    """Optima with one coefficient held, those that the rows accept.

    theta: (points, coefficients); value: (points,) their objectives; held: (points,) index of the coefficient that was
    moved and held.
    covariance: (coefficients, coefficients) of θ from the information at the optimum; zero where not free."""

    theta: np.ndarray
    value: np.ndarray
    held: np.ndarray
    covariance: np.ndarray

    def inside(self, problem: Problem, theta: np.ndarray) -> np.ndarray:
        """Where fits of other losses begin, (coefficients,): theta; where it has a coefficient at a wall, an accepted
        law that has none there, if there is one: at a wall the objective is flat, and a fit would not leave it."""
        low, high = problem.form.bounds()

        def walls(at):
            return (np.minimum(at - low, high - at) < _NEAR_WALL).sum(-1)

        fewer = np.flatnonzero(walls(self.theta) < walls(theta)) if len(self.theta) else []
        if not len(fewer):
            return theta
        best = fewer[np.lexsort((self.value[fewer], walls(self.theta[fewer])))[0]]
        return self.theta[best]

    def reach(self, form: Form, theta: np.ndarray, name: str) -> tuple[float, float]:
        """The lowest and highest value of a coefficient among the optimum theta and the accepted laws."""
        seen = form.outer(np.concatenate([self.theta, theta[None]]))[name]
        return float(seen.min()), float(seen.max())

    @property
    def correlation(self) -> np.ndarray:
        """Of the estimates, (coefficients, coefficients)."""
        size = np.sqrt(np.maximum(np.diag(self.covariance), 1e-300))
        return self.covariance / size[:, None] / size


def unit(problem: Problem, theta: np.ndarray) -> np.ndarray:
    """How far each coordinate may move and still be identified, (coefficients,): a factor of RATIO, or its value."""
    positive = np.array([c.positive for c in problem.form.coefficients.values()])
    return np.where(positive, np.log(RATIO), np.maximum(np.abs(theta), 1e-3))


def explore(problem: Problem, theta: np.ndarray, free: np.ndarray, noise: Noise) -> Accepted:
    """Laws that the rows accept at LEVEL beside the optimum theta (coefficients,), with one coefficient held at a time.

    Each free coefficient is held half a unit and a unit to either side, and where starts are drawn. The fits begin on
    the tangent of the profile; where a coefficient is at a wall, or of no effect, also with it inside."""
    problem = problem.at(huber=max(problem.objective.huber, EASY))
    slope, size = _psi(problem, noise)
    covariance = _covariance(problem, theta, free, size / max(slope, 1e-150) ** 2)
    low, high = problem.form.bounds()
    units = unit(problem, theta)
    inside = np.array([np.mean([c.inner(v) for v in c.start]) for c in problem.form.coefficients.values()])
    loose = free & ((np.minimum(theta - low, high - theta) < _NEAR_WALL) | (np.sqrt(np.diag(covariance)) > units))
    starts, held = [], []
    for i in np.flatnonzero(free):
        coefficient = list(problem.form.coefficients.values())[i]
        boxed = [float(coefficient.inner(v)) for v in coefficient.start]
        values = [*(theta[i] + units[i] * np.array([-1.01, -0.505, 0.505, 1.01])), *boxed, inside[i]]
        for value in np.clip(values, low[i], high[i]):
            along = covariance[i] / max(covariance[i, i], 1e-300) * (value - theta[i])
            for start in [np.where(loose, inside, theta)] * bool(loose.any()) + [
                theta + np.clip(along, -_MOST_MOVED, _MOST_MOVED)
            ]:
                start = np.where(free, np.clip(start, low, high), theta)
                start[i] = value
                starts.append(start)
                held.append(i)
    held, moving = np.array(held, int), np.tile(free, (len(held) + 1, 1))
    moving[np.arange(len(held)), held] = False  # the last one is the optimum's own
    starts = np.array([*starts, theta])
    found = minimise(problem, starts, None, moving, tolerance=_TOLERANCE, max_steps=_STEPS)
    value = found.value[:-1]
    deviance = 2 * (value - found.value.min()) * slope / max(size, 1e-300)
    kept = np.isfinite(value) & (deviance <= stdtrit(noise.freedom, (1 + LEVEL) / 2) ** 2)
    return Accepted(found.theta[:-1][kept], value[kept], held[kept], covariance)


def _psi(problem: Problem, noise: Noise) -> tuple[float, float]:
    """Means of ψ' and of ψ² over the noise, ψ the derivative of the Huber loss: what variances of θ and the likelihood
    ratio take the place of 1 and σ² from. A δ below the noise sees few rows: the density is read in a wider window."""
    size, delta, share = np.abs(noise.values) / problem.widths, problem.objective.huber, problem.weights
    square = float(np.average(np.minimum(size, delta) ** 2, weights=share))
    window = max(delta, _WINDOW * _median(size, share) / 0.6745)
    if not np.isfinite(window) or window <= 0:
        return 1.0, square
    return float(np.average(size <= window, weights=share)) * min(1.0, delta / window), square


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, below[-1] / 2)])


def _covariance(problem: Problem, theta: np.ndarray, free: np.ndarray, variance: float) -> np.ndarray:
    """Of θ, from the information matrix of the free coefficients with its diagonal scaled to 1. Null directions get a
    variance that stands for any."""
    J = jacobian(problem, theta, free) * np.sqrt(problem.weights)[:, None]
    lengths = np.maximum(np.sqrt((J**2).sum(0)), 1e-12)
    values, vectors = np.linalg.eigh((J / lengths).T @ (J / lengths))
    inverse = (vectors / np.maximum(values, _RANK)) @ vectors.T
    out = np.zeros((len(theta), len(theta)))
    out[np.ix_(free, free)] = variance * inverse / lengths[:, None] / lengths
    return out
