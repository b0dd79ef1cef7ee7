"""The bootstrap: losses are drawn again and the law is fitted to each draw.

residuals: every row keeps its place and gets the law's loss plus the noise of a row drawn at random, with either sign.
wild: it gets its own noise, with either sign, so that noise may differ from row to row; rows of a cluster share the
    sign, and their noise may be common.
pairs: rows are drawn with replacement.

The first two multiply a sample's noise by √(f/χ²_f), f the degrees of freedom, as its size is an estimate: normal
errors of a linear law get Student's interval. Pairs are for a paper's own intervals, and for an objective that pulls
the law off the rows' middle: it would pull samples of that law once more. Coverage is measured in
experiments/benchmarks/coverage.py."""

from dataclasses import asdict, dataclass

import numpy as np

from moe_jax import errors
from moe_jax.laws import residuals
from moe_jax.laws.levenberg_marquardt import Ended, descend
from moe_jax.laws.objective import Problem
from moe_jax.laws.residuals import MOST_LEFT_OUT, Noise, is_alike

METHODS = ("residuals", "wild", "pairs")
FEWEST_CLUSTERS = 5
_FEW_CLUSTERS = 12  # below this two signs give too few different samples
_SIGNS = np.array([-1.0, 1.0])
_WEBB = np.sqrt([1.5, 1.0, 0.5])  # Webb 2023, six points of mean 0 and variance 1
_SIX = np.concatenate([-_WEBB, _WEBB])


@dataclass(frozen=True)
class Resampling:
    """How the bootstrap draws its samples, and the share of them in an interval.

    method: of METHODS; "": residuals or wild, as the rows allow, and pairs where a fraction or no replacement is asked,
    or the objective has a penalty or is one-sided.
    cluster: a column; rows with one value of it are drawn together.
    fraction, replace: of the rows of a sample, for pairs. The papers differ: krajewski2024's text says 80% of the rows,
    its code draws them with replacement. Without replacement, samples of a share s scatter less than the data do, by
    √((1−s)/s) in the standard error: half as wide at 80%. Raises UserError for invalid settings."""

    samples: int = 1000
    fraction: float = 1.0
    replace: bool = True
    level: float = 0.8  # intervals hold the central 80%: the 10th to 90th percentile that these papers print
    seed: int = 0
    method: str = ""
    cluster: str = ""

    def __post_init__(self):
        if self.samples < 0 or not 0 < self.fraction <= 1 or not 0 < self.level < 1:
            raise errors.UserError(
                f"bootstrap of {self.samples} samples, fraction {self.fraction}, level {self.level}: samples must not"
                " be negative, the fraction in (0, 1] and the level inside (0, 1)"
            )
        if self.seed < 0:
            raise errors.UserError(f"the bootstrap's seed is {self.seed}, must not be negative")
        if self.samples and not self.replace and self.fraction == 1:
            raise errors.UserError(
                "a bootstrap of all rows without replacement repeats the fit; give a fraction below 1"
            )
        if self.method not in ("", *METHODS):
            raise errors.UserError(f"interval method {self.method!r} is none of {', '.join(METHODS)}")
        if self.of_pairs and self.method not in ("", "pairs"):
            raise errors.UserError(
                f"a fraction of the rows, or rows drawn without replacement, belong to pairs, not to {self.method}"
            )
        if self.cluster and self.method == "residuals":
            raise errors.UserError(
                f"rows of one {self.cluster} may share their noise, which the method residuals mixes: take wild or"
                " pairs"
            )

    @property
    def of_pairs(self) -> bool:
        """True where only pairs can draw what is asked."""
        return self.fraction < 1 or not self.replace

    def to_json(self) -> dict:
        """The settings, for law.json."""
        return asdict(self)

    def counts(self, rows: int) -> np.ndarray:
        """How often each sample of pairs draws each row (or cluster), (samples, rows) uint8.

        With a mean of at most 1, a count above 255 has a probability of 1e-507."""
        rng, size = np.random.default_rng(self.seed), max(1, round(self.fraction * rows))
        counts = np.empty((self.samples, rows), np.uint8)
        for one in counts:
            if self.replace:
                one[:] = rng.multinomial(size, np.full(rows, 1 / rows))
            else:
                one[:] = rng.permuted(np.arange(rows)) < size
        return counts

    def method_for(self, problem: Problem, theta: np.ndarray, noise: Noise) -> str:
        """The method that is used on these rows."""
        if self.method or self.of_pairs:
            return self.method or "pairs"
        if problem.objective.is_biased:
            return "pairs"
        few = len(noise.values) <= MOST_LEFT_OUT  # on many rows the two agree, and signs take a byte
        return "residuals" if few and not self.cluster and is_alike(problem, theta, noise.values) else "wild"


def resample(
    problem: Problem,
    theta: np.ndarray,
    free: np.ndarray,
    resampling: Resampling,
    ended: Ended | None = None,
    *,
    noise: Noise | None = None,
    clusters: np.ndarray | None = None,
    begin: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """Coefficients of every sample by name, each (samples,); {} without samples.

    theta (coefficients,): the optimum of all rows; free: what the fit may move; noise: of the rows (default: by their
    leverage); clusters (rows,): a number for each cluster; begin: where the fits of samples start (default theta)."""
    if not resampling.samples:
        return {}
    starts = np.tile(theta if begin is None else begin, (resampling.samples, 1))
    noise = residuals.noise(problem, theta, free, None) if noise is None else noise
    groups = np.arange(len(problem.losses)) if clusters is None else clusters
    method = resampling.method_for(problem, theta, noise)
    if method == "pairs":
        counts = resampling.counts(groups.max() + 1)
        counts = counts if clusters is None else counts[:, groups]
        found = descend(problem, starts, counts, free, ended=ended)
    else:
        draw = _residual_targets if method == "residuals" else _wild_targets
        targets = draw(problem.predicted(theta), noise, resampling, groups)
        found = descend(problem, starts, None, free, targets=targets, ended=ended)
    return problem.form.outer(found.theta)


def _residual_targets(predicted: np.ndarray, noise: Noise, resampling: Resampling, groups: np.ndarray):
    """Targets of samples by number: the law plus the noise of rows drawn at random, with either sign."""
    rng, rows = np.random.default_rng(resampling.seed), len(predicted)
    kind = np.int16 if rows < 2**15 else np.int32
    drawn = np.empty((resampling.samples, rows), kind)  # sign × (row + 1)
    for one in drawn:
        one[:] = rng.integers(1, rows + 1, rows) * rng.choice([-1, 1], rows)
    scale = _scales(rng, noise.freedom, resampling.samples)
    signed = np.concatenate([-noise.values[::-1], [0.0], noise.values])
    return lambda jobs: predicted + scale[jobs, None] * signed[drawn[jobs].astype(np.intp) + rows]


def _wild_targets(predicted: np.ndarray, noise: Noise, resampling: Resampling, groups: np.ndarray):
    """Targets of samples by number: the law plus each row's own noise, with the sign (or weight) of its cluster."""
    rng, clusters = np.random.default_rng(resampling.seed), int(groups.max()) + 1
    shared = clusters < len(predicted)
    weights = _SIX if shared and clusters < _FEW_CLUSTERS else _SIGNS
    drawn = np.empty((resampling.samples, clusters), np.int8)
    for one in drawn:
        one[:] = rng.integers(0, len(weights), clusters)
    freedom = max(1, min(noise.freedom, clusters - 1)) if shared else noise.freedom
    scale = _scales(rng, freedom, resampling.samples) * (np.sqrt(clusters / (clusters - 1)) if shared else 1.0)
    return lambda jobs: predicted + scale[jobs, None] * weights[drawn[jobs]][:, groups] * noise.values


def _scales(rng: np.random.Generator, freedom: int, samples: int) -> np.ndarray:
    """√(f/χ²_f), (samples,). With few degrees of freedom its tail is cut: one sample in a thousand is beyond."""
    return np.minimum(np.sqrt(freedom / rng.chisquare(freedom, samples)), 1 + 30 / freedom)
