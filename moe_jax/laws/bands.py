"""Prediction bands, with what widens them stated source by source."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np


@dataclass(frozen=True)
class Bands:
    """A law's predictions, and how far off they may be; arrays of one shape, nats per token.

    law: (low, high), the central `level` of the bootstrap samples' predictions, NaN without samples: what the rows
    leave open about the coefficients. noise, beyond: half the widths of the central `level` of a single run's scatter
    about the law, and of the law's own error beyond its data (see extrapolation; 0 within, and where it is unknown)."""

    value: np.ndarray
    law: tuple[np.ndarray, np.ndarray]
    noise: np.ndarray
    beyond: np.ndarray

    def together(self, residual: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) of one more run, or without `residual` of the mean of such runs.

        The sources are independent: half the widths add in quadrature, below and above the value."""
        widths = (np.maximum(self.value - self.law[0], 0), np.maximum(self.law[1] - self.value, 0))
        other = self.beyond**2 + (self.noise**2 if residual else 0)
        below, above = (np.sqrt(width**2 + other) for width in widths)
        return self.value - below, self.value + above


def half_normal(level: float) -> float:
    """Half the width of the central `level` of a standard normal."""
    return NormalDist().inv_cdf((1 + level) / 2)
