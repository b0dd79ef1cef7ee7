"""Intervals by resampling whole runs and fitting again."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from moe_jax import errors
from moe_jax.laws.forms import Form
from moe_jax.laws.objective import Problem
from moe_jax.laws.optimise import descend


@dataclass(frozen=True)
class Resampling:
    """How rows are drawn. The papers differ: krajewski2024's text says 80% of the rows, its code draws them with
    replacement.

    Without replacement, samples of a share s scatter less than the data do, by √((1−s)/s) in the standard error: half
    as wide at 80%. The default, all rows with replacement, is the ordinary bootstrap."""

    samples: int = 1000
    fraction: float = 1.0
    replace: bool = True
    level: float = 0.8  # intervals hold the central 80%: the 10th to 90th percentile that these papers print
    seed: int = 0

    def __post_init__(self):
        if self.samples < 0 or not 0 < self.fraction <= 1 or not 0 < self.level < 1:
            raise errors.UserError(
                f"bootstrap of {self.samples} samples, fraction {self.fraction}, level {self.level}: samples must not"
                " be negative, the fraction in (0, 1] and the level inside (0, 1)"
            )
        if self.samples and not self.replace and self.fraction == 1:
            raise errors.UserError(
                "a bootstrap of all rows without replacement repeats the fit; give a fraction below 1"
            )

    def to_json(self) -> dict:
        return asdict(self)

    def counts(self, rows: int) -> np.ndarray:
        """How often each row is drawn, (samples, rows)."""
        rng, size = np.random.default_rng(self.seed), max(1, round(self.fraction * rows))
        if self.replace:
            return rng.multinomial(size, np.full(rows, 1 / rows), size=self.samples).astype(np.float64)
        order = rng.permuted(np.tile(np.arange(rows), (self.samples, 1)), axis=1)
        return (order < size).astype(np.float64)


def resample(problem: Problem, theta: np.ndarray, free: np.ndarray, resampling: Resampling) -> dict[str, np.ndarray]:
    """Coefficients of every sample by name, (samples,); each is fitted from the optimum of all rows."""
    if not resampling.samples:
        return {}
    weights = resampling.counts(len(problem.losses)) * problem.weights
    found = descend(problem, np.tile(theta, (resampling.samples, 1)), weights, free)
    return problem.form.outer(found.theta)


def intervals(
    form: Form, samples: Mapping, coefficients: Mapping[str, float], level: float
) -> dict[str, tuple[float, float]]:
    """The central `level` of the samples of each coefficient; a fixed one gives (v, v). Empty without samples."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    return {k: tuple(map(float, np.quantile(v, tails))) for k, v in samples.items()}
