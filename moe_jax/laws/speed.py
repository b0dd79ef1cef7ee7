"""How fast shapes train: the FLOP/s that a chip reaches, from measured or predicted runs.

    speed = laws.speed.fit(runs)    # a mapping or DataFrame with the columns of COLUMNS, a row a run
    speed.seconds_per_token(laws.Shape(), columns)

What a chip reaches of its peak changes slowly with the shape, what a step computes does not: so the rate is
interpolated, and train_flops (flops.py) gives the seconds. Two ways are tried, each judged by predicting every measured
shape from the others, and the better one is taken:

    regression    ln rate = a + b ln d_model + c [mixture] + e ln G + f ln K + h ln E, terms that vary alone
    nearest       the rate of the nearest G, K and E measured, linear in ln d_model between its widths

Outside the measured shapes the rate stays what it is at their edge."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe_jax import errors
from moe_jax.laws.shapes import Shape

SHAPE = ("d_model", "granularity", "active_rate", "expansion_rate")
# flops_per_token: train_flops of one token; tokens_per_chip_second: what one chip trains in a second.
COLUMNS = (*SHAPE, "flops_per_token", "tokens_per_chip_second")


@dataclass(frozen=True, eq=False)
class Speed:
    """The rate of a chip over shapes. Shapes' arrays are (shapes, len(SHAPE)), one row a measured shape."""

    shapes: np.ndarray
    rates: np.ndarray  # (shapes,) FLOP/s of one chip
    method: str  # regression or nearest
    error: float  # RMS of ln rate over the measured shapes, each predicted from the others; NaN with one shape
    coefficients: np.ndarray | None = None  # of the regression, over _features

    def rate(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """FLOP/s of one chip; columns: those of SHAPE, which broadcast."""
        asked = np.broadcast_arrays(*(np.asarray(columns[c], float) for c in SHAPE))
        points = np.stack([a.ravel() for a in asked], -1)
        points = np.clip(points, self.shapes.min(0), self.shapes.max(0))
        return _predict(self.method, self.coefficients, self.shapes, self.rates, points).reshape(asked[0].shape)

    def seconds_per_token(self, shape: Shape, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Seconds that one chip trains on a token; columns: those of Shape.columns."""
        return shape.flops_per_token("train_flops", columns) / self.rate(columns)

    def outside(self, values: Mapping[str, float]) -> tuple[str, ...]:
        """The columns of a shape that lie outside the measured ones."""
        low, high = self.shapes.min(0) * (1 - 1e-9), self.shapes.max(0) * (1 + 1e-9)
        return tuple(c for c, a, b in zip(SHAPE, low, high, strict=True) if not a <= values[c] <= b)

    def range(self, column: str) -> tuple[float, float]:
        """(min, max) of a column of the measured shapes."""
        values = self.shapes[:, SHAPE.index(column)]
        return float(values.min()), float(values.max())

    def has(self, column: str, value: float) -> bool:
        """Whether a shape with this value of a column was measured."""
        return bool(np.isclose(self.shapes[:, SHAPE.index(column)], value).any())

    def __str__(self) -> str:
        low, high = self.rates.min(), self.rates.max()
        n = len(self.shapes)
        how = {"regression": "a regression over", "nearest": "the nearest of"}[self.method]
        said = f"{how} {n} {'shapes' if n > 1 else 'shape'}, {low:.3g} to {high:.3g} FLOP/s a chip"
        if np.isnan(self.error):
            return f"{said}; its error cannot be known from one shape"
        return f"{said}; a shape predicted from the others is off by {np.expm1(self.error):.0%}"


def fit(runs: Mapping) -> Speed:
    """The speed of shapes from runs with COLUMNS; several runs of one shape count as their median.

    Raises UserError for a missing column, no run, and numbers that are not above 0."""
    if missing := [c for c in COLUMNS if c not in runs]:
        raise errors.UserError(f"the speeds have no {missing[0]}; they need {', '.join(COLUMNS)}")
    values = np.stack([np.asarray(runs[c], float) for c in COLUMNS], -1)
    if not len(values):
        raise errors.UserError("there is no run to take a speed from")
    if not (np.isfinite(values) & (values > 0)).all():
        bad = COLUMNS[int(np.flatnonzero(~(np.isfinite(values) & (values > 0)).all(0))[0])]
        raise errors.UserError(f"{bad} of the speeds is not above 0 in every run")
    shapes, index = np.unique(values[:, : len(SHAPE)], axis=0, return_inverse=True)
    rates = np.prod(values[:, len(SHAPE) :], -1)
    medians = np.array([np.median(rates[index.ravel() == i]) for i in range(len(shapes))])
    judged = {method: _error(method, shapes, medians) for method in ("regression", "nearest")}
    method = min(judged, key=lambda m: np.inf if np.isnan(judged[m]) else judged[m])
    if np.isnan(judged[method]):
        method = "nearest"
    coefficients = _regress(shapes, medians) if method == "regression" else None
    return Speed(shapes, medians, method, judged[method], coefficients)


def _error(method: str, shapes: np.ndarray, rates: np.ndarray) -> float:
    """RMS of ln rate of each shape predicted from the others; NaN where they are too few."""
    if len(shapes) < (2 if method == "nearest" else np.linalg.matrix_rank(_features(shapes)) + 2):
        return np.nan
    off = []
    for i in range(len(shapes)):
        others = np.arange(len(shapes)) != i
        at = np.clip(shapes[i : i + 1], shapes[others].min(0), shapes[others].max(0))
        coefficients = _regress(shapes[others], rates[others]) if method == "regression" else None
        off.append(np.log(_predict(method, coefficients, shapes[others], rates[others], at)[0] / rates[i]))
    return float(np.sqrt(np.mean(np.square(off))))


def _features(shapes: np.ndarray) -> np.ndarray:
    d, G, K, E = np.log(shapes).T
    return np.stack([np.ones_like(d), d - np.log(512.0), E > 0, G, K, E], -1)


def _regress(shapes: np.ndarray, rates: np.ndarray) -> np.ndarray:
    # lstsq's shortest solution: a term that does not vary gets no weight beside the constant
    return np.linalg.lstsq(_features(shapes), np.log(rates), rcond=1e-9)[0]


def _predict(method: str, coefficients, shapes: np.ndarray, rates: np.ndarray, points: np.ndarray) -> np.ndarray:
    """FLOP/s at points (points, len(SHAPE)) inside the range of the shapes."""
    if method == "regression":
        return np.exp(_features(points) @ coefficients)
    kinds, index = np.unique(shapes[:, 1:], axis=0, return_inverse=True)  # G, K, E
    asked, back = np.unique(points[:, 1:], axis=0, return_inverse=True)
    out = np.empty(len(points))
    for i, kind in enumerate(asked):
        nearest = np.argmin(np.square(np.log(kinds / kind)).sum(-1))
        own, mine = index.ravel() == nearest, back.ravel() == i
        out[mine] = np.exp(np.interp(np.log(points[mine, 0]), np.log(shapes[own, 0]), np.log(rates[own])))
    return out
