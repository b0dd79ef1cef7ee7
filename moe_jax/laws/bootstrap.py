"""The bootstrap: whole runs are resampled and the law is fitted again."""

from dataclasses import asdict, dataclass

import numpy as np

from moe_jax import errors
from moe_jax.laws.levenberg_marquardt import Ended, descend
from moe_jax.laws.objective import Problem


@dataclass(frozen=True)
class Resampling:
    """How the rows of a bootstrap sample are drawn; the default, all rows with replacement, is the ordinary bootstrap.

    The papers differ: krajewski2024's text says 80% of the rows, its code draws them with replacement. Without
    replacement, samples of a share s scatter less than the data do, by √((1−s)/s) in the standard error: half as wide
    at 80%. Raises UserError for invalid numbers."""

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
        """The settings, for law.json."""
        return asdict(self)

    def counts(self, rows: int) -> np.ndarray:
        """How often each sample draws each row, (samples, rows) uint8.

        With a mean of at most 1, a count above 255 has a probability of 1e-507."""
        rng, size = np.random.default_rng(self.seed), max(1, round(self.fraction * rows))
        counts = np.empty((self.samples, rows), np.uint8)
        for one in counts:
            if self.replace:
                one[:] = rng.multinomial(size, np.full(rows, 1 / rows))
            else:
                one[:] = rng.permuted(np.arange(rows)) < size
        return counts


def resample(
    problem: Problem, theta: np.ndarray, free: np.ndarray, resampling: Resampling, ended: Ended | None = None
) -> dict[str, np.ndarray]:
    """Coefficients of every sample by name, each (samples,); {} without samples.

    Each sample is fitted from theta (coefficients,), the optimum of all rows; free: what the fit may move."""
    if not resampling.samples:
        return {}
    counts = resampling.counts(len(problem.losses))
    found = descend(problem, np.tile(theta, (resampling.samples, 1)), counts, free, ended=ended)
    return problem.form.outer(found.theta)
