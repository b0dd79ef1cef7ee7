"""Compute-optimal models over budgets, and the FLOPs that dense models and G = 1 need for the same loss."""

import dataclasses

import numpy as np

from moe_jax import laws
from moe_jax.laws import Law
from moe_jax.report.papers.krajewski2024.fits import Fits

BUDGETS = np.logspace(18, 26, 17)


@dataclasses.dataclass(frozen=True)
class Needed:
    """One law's compute-optimal models, and the FLOPs that others need for the same loss. Arrays (budgets,)."""

    budgets: np.ndarray  # FLOPs
    loss: np.ndarray  # of the optimum, nats per token
    granularity: np.ndarray  # of the optimum
    dense: np.ndarray  # FLOPs of a dense model with the same loss, in units of the budget
    coarse: np.ndarray  # the same for G = 1
    dense_loss: np.ndarray  # of the best dense model of the same budget, nats per token

    def dense_at(self, flops: float) -> float:
        """`dense` at the budget nearest to `flops`."""
        return float(self.dense[self._nearest(flops)])

    def coarse_at(self, flops: float) -> float:
        """`coarse` at the budget nearest to `flops`."""
        return float(self.coarse[self._nearest(flops)])

    def _nearest(self, flops: float) -> int:
        return int(np.abs(np.log(self.budgets / flops)).argmin())


def flops_needed(fits: Fits) -> dict[str, Needed]:
    """By the origin of the law: the paper's coefficients, and refits where there are third-party losses."""
    found = {
        "the paper's coefficients": _needed(laws.published("krajewski2024"), laws.published("krajewski2024_dense"))
    }
    if fits.third_party is not None and fits.third_party_dense is not None:
        moe, dense = (dataclasses.replace(f.law, samples={}) for f in (fits.third_party, fits.third_party_dense))
        found["refits of third-party losses"] = _needed(moe, dense)
    return found


def _needed(law: Law, dense: Law) -> Needed:
    best = laws.Planner(law, choices=laws.Choices(expansion_rates=[64]))
    coarse = laws.Planner(law, choices=laws.Choices(expansion_rates=[64], granularities=[1]))
    alone = laws.Planner(dense)
    plans = [best.best(C).values for C in BUDGETS]
    losses = np.array([values["loss"] for values in plans])
    return Needed(
        budgets=BUDGETS,
        loss=losses,
        granularity=np.array([values["granularity"] for values in plans]),
        dense=alone.flops_for(losses) / BUDGETS,
        coarse=coarse.flops_for(losses) / BUDGETS,
        dense_loss=np.array([alone.best(C).values["loss"] for C in BUDGETS]),
    )
