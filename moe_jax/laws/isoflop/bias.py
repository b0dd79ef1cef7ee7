"""Whether a budget's grid of sizes biases the minimum of a parabola.

The loss at one budget is no parabola in ln N. Where the runs lie off its minimum, or reach further to one side, the
parabola follows the curve's far arm and its minimum moves; its bootstrap interval does not know. The parabola through
the runs near the minimum (one_budget.window) is all but free of that and noisier. Where its minimum lies outside the
other's interval, and the bootstrap agrees on the direction, that interval says less than it should. A cubic through all
runs is no judge: off the minimum it is biased as well (docs/isoflop.md)."""

import numpy as np

from moe_jax.laws.intervals import tails
from moe_jax.laws.isoflop import one_budget

_SAMPLES = 10  # with a minimum, at least


def sentence(
    C: float, x: np.ndarray, y: np.ndarray, counts: np.ndarray, samples: np.ndarray, level: float
) -> str | None:
    """What to say about a budget whose parabola is biased by more than its interval; None for another.

    x = ln N and y are (runs,); counts: how often each bootstrap sample draws each run, (samples, runs); samples: ln N*
    of their parabolas (samples,)."""
    wide, near = one_budget.parabola(x, y), one_budget.window(x, y)
    if not (wide.usable and near.usable):
        return None
    inside = (near.ends[0] <= x) & (x <= near.ends[1])
    known = np.isfinite(samples)
    if inside.all() or known.sum() < _SAMPLES:
        return None
    close = one_budget.resampled("parabola", x[inside], y[inside], counts[:, inside])
    low, high = np.quantile(samples[known], tails(level))
    apart = (close - samples)[known & np.isfinite(close)]
    if len(apart) < _SAMPLES:
        return None
    apart_low, apart_high = np.quantile(apart, tails(level))
    if low <= near.at <= high or apart_low * apart_high <= 0:
        return None
    below, above = np.exp(wide.at - x.min()), np.exp(x.max() - wide.at)
    return (
        f"{C:.3g} FLOPs: the grid of sizes biases the parabola's minimum by more than its interval: the runs reach"
        f" {below:.3g}× below it and {above:.3g}× above, and those near it have theirs at"
        f" {np.exp(near.at - wide.at):.2f} times its N; --method=window takes these, or train sizes on both sides"
    )
