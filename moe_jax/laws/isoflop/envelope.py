"""The lower envelope of losses over compute (Hoffmann et al. 2022, approach 1): the run that is best at each budget.

From training curves (metrics.jsonl) every budget up to the dearest run has a best run. From final losses alone, only
the runs that no cheaper run beats are points of the envelope. N* is one of the sizes that were trained, so the power
law goes through stairs. Curves before the end of a decaying schedule lie above those of runs planned to that length."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws.bootstrap import Resampling
from moe_jax.laws.isoflop import minima
from moe_jax.laws.isoflop.minima import Minima

_A_DECADE = 20  # budgets
SMOOTHING = 0.05  # share of its tokens to either side over which a logged loss is averaged
_SKIPPED = 0.02  # of a run's tokens, at its begin


@dataclass(frozen=True)
class TrainingCurve:
    """The logged losses of one run: its size N, and tokens and losses (nats), each (steps,), in order."""

    N: float
    tokens: np.ndarray
    losses: np.ndarray
    flops_per_token: float


def of_curves(curves: Sequence[TrainingCurve], resampling: Resampling | None = None) -> Minima:
    """The envelope of training curves, at 20 budgets a decade. Raises UserError for curves of fewer than three sizes.

    A budget is usable where the best run is neither the smallest nor the largest of those that got there."""
    curves = [c for c in curves if len(c.tokens) > 1]
    N = np.array([c.N for c in curves])
    _refuse_few(N)
    smooth = [_smooth(c) for c in curves]
    low, high = min(x[0] for x, _ in smooth), max(x[-1] for x, _ in smooth)
    grid = np.linspace(low, high, max(2, int(np.ceil((high - low) / np.log(10) * _A_DECADE))))
    losses = np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in smooth])
    tokens = np.exp(grid) / np.array([[c.flops_per_token] for c in curves])
    return _envelope(N, losses, tokens, grid, np.ones_like(losses, bool), resampling or Resampling())


def of_final_losses(
    N: np.ndarray, tokens: np.ndarray, flops: np.ndarray, loss: np.ndarray, resampling: Resampling | None = None
) -> Minima:
    """The envelope of final losses, arrays (runs,): a run is a point of it where none that costs less is as good.

    Raises UserError for runs of fewer than three sizes."""
    N = np.asarray(N, float)
    _refuse_few(N)
    grid, which = np.unique(np.log(flops), return_inverse=True)
    paid = which[:, None] <= np.arange(len(grid))  # (runs, budgets): the run costs at most the budget
    own = which[:, None] == np.arange(len(grid))
    losses = np.where(paid, np.asarray(loss, float)[:, None], np.nan)
    return _envelope(
        N, losses, np.repeat(np.asarray(tokens, float)[:, None], len(grid), 1), grid, own, resampling or Resampling()
    )


def _envelope(
    N: np.ndarray, losses: np.ndarray, tokens: np.ndarray, grid: np.ndarray, own: np.ndarray, resampling: Resampling
) -> Minima:
    """losses: (runs, budgets), NaN where a run has none; own: where a run's point may be one of the envelope."""
    best, inside = _best(N, losses, own)
    rows = np.arange(len(N))
    rng = np.random.default_rng(resampling.seed)
    sampled, found = np.full((resampling.samples, len(grid)), np.nan), []
    for i in range(resampling.samples):
        drawn = rng.choice(rows, len(rows))
        chosen, good = _best(N[drawn], losses[drawn], own[drawn])
        sampled[i] = np.where(good, np.log(N[drawn])[chosen], np.nan)
        found.append(minima.power_laws(grid, sampled[i], np.log(tokens[drawn][chosen, np.arange(len(grid))])))
    samples = np.array([s for s in found if np.isfinite(s).all()]).reshape(-1, 2, 2)
    at = np.arange(len(grid))
    here = own[best, at] & np.isfinite(losses).any(0)
    if not own.all():  # of final losses: a sample without the run has no point at its budget
        sampled[:] = np.nan
    low, high = np.exp(minima.quantiles(sampled, resampling.level))
    table = pd.DataFrame(
        {
            "flops": np.exp(grid), "runs": np.isfinite(losses).sum(0), "N": N[best], "N_low": low, "N_high": high,
            "tokens": tokens[best, at], "loss": losses[best, at],
            "usable": inside, "why": np.where(inside, "", "the best run is an end of the sizes"),
        },
        columns=minima.COLUMNS,
    )[here]  # fmt: skip
    laws = minima.power_laws(grid, np.where(inside, np.log(N[best]), np.nan), np.log(tokens[best, at]))
    return Minima("envelope", table.reset_index(drop=True), laws, samples, resampling.level, left_out=0)


def _best(N: np.ndarray, losses: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(budgets,): the run of lowest loss, and whether smaller and larger ones got there too."""
    known = np.isfinite(losses)
    best = np.argmin(np.where(known, losses, np.inf), 0)
    smallest = np.where(known, N[:, None], np.inf).min(0)
    largest = np.where(known, N[:, None], -np.inf).max(0)
    at = np.arange(losses.shape[1])
    return best, own[best, at] & known.any(0) & (smallest < N[best]) & (N[best] < largest)


def _smooth(curve: TrainingCurve) -> tuple[np.ndarray, np.ndarray]:
    """(ln FLOPs, loss): means over the logged steps within SMOOTHING of their tokens, without the begin."""
    t, y = np.asarray(curve.tokens, float), np.asarray(curve.losses, float)
    total = np.concatenate([[0.0], np.cumsum(y)])
    first, last = np.searchsorted(t, t * (1 - SMOOTHING)), np.searchsorted(t, t * (1 + SMOOTHING), side="right")
    kept = t >= _SKIPPED * t[-1]
    return np.log(t * curve.flops_per_token)[kept], ((total[last] - total[first]) / (last - first))[kept]


def _refuse_few(N: np.ndarray) -> None:
    if len(np.unique(N)) < 3:
        raise errors.UserError(
            f"an envelope needs runs of three sizes, and these have {len(np.unique(N))}: there is nothing to fit"
        )


def curves_of(
    logged: Mapping[str, tuple[np.ndarray, np.ndarray]],
    names: Sequence[str],
    N: np.ndarray,
    tokens: np.ndarray,
    flops: np.ndarray,
) -> list[TrainingCurve]:
    """The training curves of runs by name, from what they logged (tokens, losses); N, tokens, flops: (runs,)."""
    return [
        TrainingCurve(float(N[i]), *map(np.asarray, logged[name]), float(flops[i] / tokens[i]))
        for i, name in enumerate(names)
        if name in logged and len(logged[name][0]) > 1
    ]
