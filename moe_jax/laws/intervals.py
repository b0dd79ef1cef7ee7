"""Central intervals of bootstrap samples."""

from collections.abc import Mapping

import numpy as np


def tails(level: float) -> tuple[float, float]:
    """The quantiles between which the central `level` of samples lies: 0.8 -> 10% and 90%."""
    return (1 - level) / 2, (1 + level) / 2


def central(samples: Mapping[str, np.ndarray], level: float) -> dict[str, tuple[float, float]]:
    """(low, high) of the central `level` of samples (samples,), by name."""
    return {k: tuple(map(float, np.quantile(v, tails(level)))) for k, v in samples.items()}
