"""The minimum of each budget, and the power law through them (Hoffmann et al. 2022, approaches 1 and 2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws.bootstrap import Resampling
from moe_jax.laws.intervals import tails
from moe_jax.laws.isoflop import bias, one_budget
from moe_jax.laws.isoflop import budgets as grouping

COLUMNS = ("flops", "runs", "N", "N_low", "N_high", "tokens", "loss", "usable", "why")
_DRAWN = 61  # points of a curve


@dataclass(frozen=True)
class Minima:
    """The size of lowest loss at each budget, and power laws of N* and D* over the budget C.

    method: one of one_budget.METHODS, or envelope. table: a row for each budget, by COLUMNS: N, tokens and loss (nats)
    at the minimum, the interval of N (NaN without samples), and whether the minimum lies inside the runs, or why not.
    power_laws: (2, 2), (exponent, intercept) of ln N* and of ln D* over ln C, through usable budgets; NaN with fewer
    than two. samples: (samples, 2, 2), the same from resampled runs. curves: budget -> (N, loss) of its curve.
    warnings: budgets whose grid biases the parabola (see bias)."""

    method: str
    table: pd.DataFrame
    power_laws: np.ndarray
    samples: np.ndarray
    level: float
    left_out: int  # runs near no budget, or near one with too few sizes
    curves: Mapping[float, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

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
    method: str = "parabola",
    budgets: Sequence[float] | None = None,
    tolerance: float = grouping.TOLERANCE,
    resampling: Resampling | None = None,
) -> Minima:
    """A curve of loss over ln N for each budget, and the power laws through their minima. Arrays are (runs,).

    budgets, tolerance: see budgets.group. resampling: its samples, level and seed apply; runs are drawn within budgets.
    Raises UserError for an unknown method, and where no budget has runs of enough sizes."""
    if method not in one_budget.METHODS:
        raise errors.UserError(f"there is no method {method!r} of one budget, only {', '.join(one_budget.METHODS)}")
    resampling = resampling or Resampling()
    x, y, u = np.log(N), np.asarray(loss, float), np.log(tokens)
    least = one_budget.SIZES[method]
    groups = {C: g for C, g in grouping.group(flops, budgets, tolerance).items() if len(np.unique(x[g])) >= least}
    if not groups:
        raise errors.UserError(f"no budget has runs of {_WORDS[least]} sizes: there is no {method} to fit")
    found = {C: one_budget.METHODS[method](x[g], y[g]) for C, g in groups.items()}
    rng = np.random.default_rng(resampling.seed)
    counts = [rng.multinomial(len(g), np.full(len(g), 1 / len(g)), resampling.samples) for g in groups.values()]
    drawn = np.full((resampling.samples, len(groups)), np.nan)
    for j, g in enumerate(groups.values()):
        at = one_budget.resampled(method, x[g], y[g], counts[j])
        drawn[:, j] = np.where((x[g].min() < at) & (at < x[g].max()), at, np.nan)
    lines = [np.polyfit(x[g], u[g], 1) for g in groups.values()]  # at one budget ln D is linear in ln N
    log_C, at = np.log([*groups]), np.array([c.at for c in found.values()])
    samples = [power_laws(log_C, sample, _on(lines, sample)) for sample in drawn]
    samples = np.array([s for s in samples if np.isfinite(s).all()]).reshape(-1, 2, 2)
    table = pd.DataFrame(
        [_row(C, len(g), found[C], line) for (C, g), line in zip(groups.items(), lines, strict=True)], columns=COLUMNS
    )
    table["N_low"], table["N_high"] = np.exp(quantiles(drawn, resampling.level))
    curves = {C: _drawn(curve) for C, curve in found.items()}
    warnings = _warnings(groups, x, y, counts, drawn, resampling.level) if method == "parabola" else ()
    left_out = len(x) - sum(len(g) for g in groups.values())
    laws = power_laws(log_C, at, _on(lines, at))
    return Minima(method, table, laws, samples, resampling.level, left_out, curves, warnings)


def power_laws(log_C: np.ndarray, log_N: np.ndarray, log_D: np.ndarray) -> np.ndarray:
    """(2, 2): exponent and intercept of ln N and of ln D over ln C, through the budgets whose N is not NaN."""
    good = np.isfinite(log_N)
    if len(np.unique(log_C[good])) < 2:
        return np.full((2, 2), np.nan)
    return np.stack([np.polyfit(log_C[good], v[good], 1) for v in (log_N, log_D)])


def quantiles(samples: np.ndarray, level: float) -> np.ndarray:
    """(2, budgets): the central `level` of samples (samples, budgets) that are not NaN; NaN where there are none."""
    found = np.full((2, samples.shape[1]), np.nan)
    for i, column in enumerate(samples.T):
        if np.isfinite(column).any():
            found[:, i] = np.nanquantile(column, tails(level))
    return found


def _warnings(groups: Mapping, x: np.ndarray, y: np.ndarray, counts: list, drawn: np.ndarray, level: float):
    """Sentences on budgets whose grid biases the parabola; one where there is no interval to compare with."""
    if not len(drawn):
        return ("without bootstrap samples it is not tested whether the grids of sizes bias the parabolas",)
    said = (bias.sentence(C, x[g], y[g], counts[j], drawn[:, j], level) for j, (C, g) in enumerate(groups.items()))
    return tuple(filter(None, said))


def _row(C: float, runs: int, curve: one_budget.Curve, line: np.ndarray) -> dict:
    with np.errstate(over="ignore"):
        N, tokens = np.exp(curve.at), np.exp(np.polyval(line, curve.at))
    return {
        "flops": C, "runs": runs, "N": N, "N_low": np.nan, "N_high": np.nan, "tokens": tokens, "loss": curve.loss,
        "usable": curve.usable, "why": curve.why,
    }  # fmt: skip


def _on(lines: Sequence[np.ndarray], log_N: np.ndarray) -> np.ndarray:
    return np.array([np.polyval(line, at) for line, at in zip(lines, log_N, strict=True)])


def _drawn(curve: one_budget.Curve) -> tuple[np.ndarray, np.ndarray]:
    at = np.linspace(*curve.ends, _DRAWN)
    return np.exp(at), curve.evaluate(at)


_WORDS = {3: "three", 4: "four"}
