"""Efficiency leverage: how many times the FLOPs of a Mixture of Experts a dense model needs for the same loss.

The quantity EL = C_dense / C_moe of the Ling team 2025 ("Towards Greater Leverage", 2507.17702), from any two laws that
the planner can plan with, and by the paper's own fit. The column "FLOPs of dense" of `moe-jax optimum` is the leverage
of its plans."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws.choices import DENSE, Choices
from moe_jax.laws.law import Law
from moe_jax.laws.planner import Planner
from moe_jax.laws.shapes import Shape


def efficiency_leverage(
    moe_law: Law,
    dense_law: Law,
    flops: Sequence[float],
    *,
    activation_ratios: Sequence[float] = (1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64),
    granularities: Sequence[float] = (1, 2, 4, 8, 16),
    active_rate: float = 1,
    shape: Shape | None = None,
    cost: str | None = None,
) -> pd.DataFrame:
    """The leverage of compute-optimal Mixtures of Experts over compute-optimal dense models of the same loss.

    activation_ratios: K / E, the share of the experts that a token meets. A law without a term for G has the
    granularity of its runs, and one row for it. cost: a FLOP formula for both (default: each law's own, which may
    differ). dense_law may be moe_law where that holds for dense models too (a law over E or S).
    One row for each budget, ratio and granularity: flops (of the MoE), activation_ratio, granularity, loss (nats),
    leverage, and low, high: the central `level` of moe_law's bootstrap samples, NaN without any. inf: no dense model
    reaches the loss. Raises UserError as Planner, and for a ratio outside (0, 1]."""
    shape, rows = shape or Shape(), []
    dense = Planner(dense_law, cost=cost, shape=shape, choices=DENSE)
    for ratio in activation_ratios:
        if not 0 < ratio <= 1:
            raise errors.UserError(f"an activation ratio of {ratio:g} is no share of the experts; give 0 < K / E <= 1")
        for G in granularities if "G" in moe_law.form.symbols else (None,):
            chosen = {} if G is None else {"granularities": (G,)}
            choices = Choices(expansion_rates=(active_rate / ratio,), active_rate=active_rate, **chosen)
            planner = Planner(moe_law, cost=cost, shape=shape, choices=choices)
            for C in flops:
                plan = planner.best(C)
                value, interval = planner.compute_ratio(plan, dense)
                low, high = interval or (np.nan, np.nan)
                rows.append(
                    {
                        "flops": plan.values["flops"],
                        "activation_ratio": ratio,
                        "granularity": plan.values["granularity"],
                        "loss": plan.values["loss"],
                        "leverage": value,
                        "low": low,
                        "high": high,
                    }
                )
    return pd.DataFrame(rows)


def ling2025_leverage(activation_ratio, granularity, flops) -> np.ndarray:
    """The leverage that the Ling team 2025 fitted to their own models; arrays broadcast.

    EL = Â^(a + d log10 C + γ (log2 G)² + β log2 G) with 1/Â = 1/(A + (1/A_start − 1/A_max)^−1) + 1/A_max. Their A
    counts shared experts, their G is 2 d_model / d_expert, and C counts FLOPs without embeddings. The paper does not
    state the bases of its logarithms: these two give its 7.2 at A = 3.1%, G = 12, C = 1e22, and its best G of about
    12; others do not. Fitted to leverages below 6."""
    a, d, gamma, beta, start, most = 1.23, -7.61e-2, 1.67e-2, -1.17e-1, 1.63e-2, 5.28e16
    A, G, C = (np.asarray(v, np.float64) for v in (activation_ratio, granularity, flops))
    saturated = 1 / (1 / (A + 1 / (1 / start - 1 / most)) + 1 / most)
    return saturated ** (a + d * np.log10(C) + gamma * np.log2(G) ** 2 + beta * np.log2(G))
