"""What a fit knows besides its optimum: bootstrap samples, the fits without each row, other laws the rows accept."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws import residuals
from moe_jax.laws.alternatives import Accepted, explore
from moe_jax.laws.bootstrap import FEWEST_CLUSTERS, Resampling, resample
from moe_jax.laws.intervals import central
from moe_jax.laws.levenberg_marquardt import Ended, descend
from moe_jax.laws.objective import Problem
from moe_jax.laws.rows import Rows


@dataclass(frozen=True)
class Uncertainty:
    """Other losses that the rows could have had, and other laws that they accept; empty without bootstrap samples."""

    samples: Mapping[str, np.ndarray]  # coefficients by name, each (samples,)
    method: str = ""  # of bootstrap.METHODS
    without: np.ndarray | None = None  # (rows, coefficients), the optima without each row; None for many rows
    accepted: Accepted | None = None
    clusters: np.ndarray | None = None  # (rows,), a number for each cluster

    def intervals(self, level: float) -> dict[str, tuple[float, float]]:
        """(low, high) of the central `level` of the samples, by name."""
        return central(self.samples, level)


def of(
    problem: Problem,
    theta: np.ndarray,
    free: np.ndarray,
    resampling: Resampling,
    clusters: np.ndarray | None,
    ended: Ended | None = None,
) -> Uncertainty:
    """The uncertainty of the optimum theta (coefficients,), of which `free` could move."""
    if not resampling.samples:
        return Uncertainty({}, clusters=clusters)
    few = len(problem.losses) <= residuals.MOST_LEFT_OUT
    without = without_each(problem, theta, free) if few else None
    noise = residuals.noise(problem, theta, free, without)
    others = explore(problem, theta, free, noise)
    begin = others.inside(problem, theta)
    samples = resample(problem, theta, free, resampling, ended, noise=noise, clusters=clusters, begin=begin)
    return Uncertainty(samples, resampling.method_for(problem, theta, noise), without, others, clusters)


def without_each(problem: Problem, theta: np.ndarray, free: np.ndarray) -> np.ndarray:
    """The optimum without each row in turn, (rows, coefficients)."""
    rows = len(problem.losses)
    others = np.ones((rows, rows), np.uint8)
    np.fill_diagonal(others, 0)
    return descend(problem, np.tile(theta, (rows, 1)), others, free).theta


def clusters_of(rows: Rows, column: str) -> np.ndarray | None:
    """A number for each row, equal within a cluster; None where no column is named.

    Raises UserError for a column that is not there, has empty cells, or tells too few clusters apart."""
    if not column:
        return None
    if column not in rows.table.columns:
        raise errors.UserError(f"--cluster is {column!r}, and the table has no such column; --columns can make one")
    codes, values = pd.factorize(rows.table[column])
    if (codes < 0).any():
        raise errors.UserError(f"--cluster {column}: {int((codes < 0).sum())} of {len(codes)} rows have no value")
    if len(values) < FEWEST_CLUSTERS:
        raise errors.UserError(
            f"--cluster {column} tells {len(values)} clusters apart; an interval needs at least {FEWEST_CLUSTERS}"
        )
    return codes
