"""Parabolas through runs of one budget, and the power law through their minima (Hoffmann et al. 2022, approach 2).

Linear least squares in ln N needs no starts. A maximum, or the end of the data, does not count as an optimum."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws.bootstrap import Resampling
from moe_jax.laws.intervals import tails
from moe_jax.laws.isoflop import budgets as grouping

_COLUMNS = ("flops", "runs", "N", "tokens", "loss", "curvature", "usable")


@dataclass(frozen=True)
class Parabolas:
    """A parabola for each budget, and power laws of N* and D* over the budget C.

    table: a row for each budget, with N, tokens and loss (nats) at the minimum; usable: the parabola opens upward and
    its minimum lies inside the runs. The parabola is loss + curvature · (ln N − ln N*)².
    power_laws: (2, 2), (exponent, intercept) of ln N* and of ln D* over ln C, through usable budgets; NaN with fewer
    than two. samples: (samples, 2, 2), the same from resampled runs."""

    table: pd.DataFrame
    power_laws: np.ndarray
    samples: np.ndarray
    level: float
    left_out: int  # runs near no budget, or near one with fewer than three sizes

    @property
    def exponent(self) -> float:
        """a of N* ∝ C^a."""
        return float(self.power_laws[0, 0])

    @property
    def interval(self) -> tuple[float, float]:
        """The central `level` of the exponent; NaN without samples."""
        return tuple(map(float, self._tails(self.samples[:, 0, 0])))

    def optimum(self, flops) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(value, low, high), each (F,), of "N" and "tokens" at budgets (F,) of FLOPs."""
        x = np.log(np.asarray(flops, float))
        return {
            name: (
                np.exp(self.power_laws[i] @ [x, np.ones_like(x)]),
                *self._tails(np.exp(self.samples[:, i] @ [x, np.ones_like(x)])),
            )
            for i, name in enumerate(("N", "tokens"))
        }

    def _tails(self, values: np.ndarray) -> np.ndarray:
        if not len(values):
            return np.full((2, *values.shape[1:]), np.nan)
        return np.quantile(values, tails(self.level), axis=0)


def fit(
    N: np.ndarray,
    tokens: np.ndarray,
    flops: np.ndarray,
    loss: np.ndarray,
    *,
    budgets: Sequence[float] | None = None,
    tolerance: float = grouping.TOLERANCE,
    resampling: Resampling | None = None,
) -> Parabolas:
    """A parabola of loss in ln N for each budget, and the power laws through their minima. Arrays are (runs,).

    budgets, tolerance: see budgets.group. resampling: its samples, level and seed apply; runs are drawn within budgets.
    Raises UserError where no budget has runs of three sizes."""
    resampling = resampling or Resampling()
    x, y, u = np.log(N), np.asarray(loss, float), np.log(tokens)
    groups = {C: g for C, g in grouping.group(flops, budgets, tolerance).items() if len(np.unique(x[g])) >= 3}
    if not groups:
        raise errors.UserError("no budget has runs of three sizes: there is no parabola to fit")
    table = pd.DataFrame([_minimum_of(C, x[g], y[g], u[g], x[g]) for C, g in groups.items()])
    rng = np.random.default_rng(resampling.seed)
    samples = [_power_laws(_resampled(rng, groups, x, y, u)) for _ in range(resampling.samples)]
    samples = np.array([s for s in samples if np.isfinite(s).all()]).reshape(-1, 2, 2)
    return Parabolas(
        table, _power_laws(table), samples, resampling.level, len(x) - sum(len(g) for g in groups.values())
    )


def _minimum_of(C: float, x: np.ndarray, y: np.ndarray, u: np.ndarray, seen: np.ndarray) -> dict:
    """A row of the table: the extremum of loss y in x = ln N, usable if it is a minimum inside the sizes `seen`."""
    middle = x.mean()
    a, b, c = np.polyfit(x - middle, y, 2)
    at, lowest = (middle - b / (2 * a), c - b**2 / (4 * a)) if a else (np.nan, np.nan)
    slope, level = np.polyfit(x - middle, u, 1)  # at one budget ln D is linear in ln N
    usable = bool(a > 0 and seen.min() < at < seen.max())
    with np.errstate(over="ignore"):
        N, tokens = np.exp(at), np.exp(level + slope * (at - middle))
    return {"flops": C, "runs": len(x), "N": N, "tokens": tokens, "loss": lowest, "curvature": a, "usable": usable}


def _resampled(rng, groups, x, y, u) -> pd.DataFrame:
    """The table of one bootstrap sample, runs drawn within each budget."""
    rows = []
    for C, g in groups.items():
        drawn = rng.choice(g, len(g))
        if len(np.unique(x[drawn])) >= 3:
            rows.append(_minimum_of(C, x[drawn], y[drawn], u[drawn], x[g]))
    return pd.DataFrame(rows, columns=_COLUMNS)


def _power_laws(table: pd.DataFrame) -> np.ndarray:
    good = table[table["usable"].astype(bool)]
    if len(good) < 2:
        return np.full((2, 2), np.nan)
    log_c = np.log(good["flops"].to_numpy(float))
    return np.stack([np.polyfit(log_c, np.log(good[k].to_numpy(float)), 1) for k in ("N", "tokens")])
