"""The runs worth training next: of candidate cells, those that would narrow the optimum's intervals most per FLOP.

The bootstrap samples of a law say what is still open: each has an optimum of its own, and a loss of its own for each
candidate. Where the two vary together, measuring the candidate settles the optimum. To first order (all Gaussian, the
linear update of a Kalman filter) a run with noise σ leaves of an optimum's variance V the share

    1 − cov(optimum, loss)² / (V (var(loss) + σ²))

The picks are made one after the other, each given those before, so that two that tell the same are not both taken."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_jax import errors
from moe_jax.laws.planner import Planner

_TAIL = 0.01  # samples beyond these quantiles count as if they lay there: a sample at a wall is not Gaussian


@dataclass(frozen=True)
class NextRun:
    """A candidate, by its index in the cells. widths: of an interval after the run / before it, 1 for no gain."""

    index: int
    flops: float
    loss: float  # predicted, nats
    alone: float  # the share of the interval's width that stays after this run alone
    together: float | None  # after this pick and all before it; None for a candidate that was not picked


def next_runs(
    planner: Planner, budgets: Sequence[float], cells: Mapping[str, np.ndarray], flops: np.ndarray, picks: int = 5
) -> list[NextRun]:
    """All candidates: the picks in their order, then the others by what they give per FLOP alone.

    cells: symbol of the law -> (cells,); flops: what each costs, (cells,). The interval is that of ln N*, N as the law
    counts it, averaged (geometrically) over the budgets. Raises UserError for a law without bootstrap samples."""
    law = planner.law
    if not law.samples:
        raise errors.UserError(
            f"{law.name} has no bootstrap samples, so its intervals are not known; fit with --bootstrap"
        )
    flops, noise = np.asarray(flops, float), law.errors.get("noise", law.errors["rmse_fit"])
    axes = {s: np.asarray(v, float) for s, v in cells.items()}
    losses = law.form.loss({s: v[None] for s, v in axes.items()}, {k: v[:, None] for k, v in law.samples.items()})
    optima = np.stack([np.log(planner.sampled(C)[planner.meant["N"]]) for C in budgets], -1)
    joint = _covariance(np.concatenate([optima, losses], -1))  # (budgets + cells) squared
    targets, n = len(budgets), len(flops)
    if not (np.diag(joint)[:targets] > 0).all():
        raise errors.UserError("the optimum is the same under every bootstrap sample: no run would narrow its interval")
    first, before = np.diag(joint)[:targets].copy(), joint
    alone = np.array([_narrowed(joint, targets, i, noise, first) for i in range(n)])
    chosen: list[tuple[int, float]] = []
    for _ in range(min(picks, n)):
        left = [i for i in range(n) if i not in {j for j, _ in chosen}]
        stays = _stays(np.diag(before)[:targets], first)
        gains = [np.log(stays / _narrowed(before, targets, i, noise, first)) / flops[i] for i in left]
        best = left[int(np.argmax(gains))]
        before = _updated(before, targets + best, noise)
        chosen.append((best, _stays(np.diag(before)[:targets], first)))
    others = sorted(set(range(n)) - {i for i, _ in chosen}, key=lambda i: np.log(alone[i]) / flops[i])
    expected = law.form.loss(axes, law.coefficients)
    order = [*chosen, *((i, None) for i in others)]
    return [NextRun(i, float(flops[i]), float(expected[i]), float(alone[i]), together) for i, together in order]


def _covariance(samples: np.ndarray) -> np.ndarray:
    """Of samples (samples, variables), robust against single samples far out."""
    return np.cov(np.clip(samples, *np.quantile(samples, (_TAIL, 1 - _TAIL), axis=0)), rowvar=False)


def _updated(joint: np.ndarray, i: int, noise: float) -> np.ndarray:
    """The covariance once variable i is measured with this noise."""
    return joint - np.outer(joint[:, i], joint[i]) / (joint[i, i] + noise**2)


def _narrowed(joint: np.ndarray, targets: int, cell: int, noise: float, first: np.ndarray) -> float:
    i = targets + cell
    left = np.diag(joint)[:targets] - joint[:targets, i] ** 2 / (joint[i, i] + noise**2)
    return _stays(left, first)


def _stays(variances: np.ndarray, first: np.ndarray) -> float:
    """The share of the intervals' width that stays, geometric mean over the targets."""
    return float(np.exp(np.mean(np.log(np.maximum(variances / first, 1e-12)))) ** 0.5)
