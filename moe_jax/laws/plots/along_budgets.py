"""A law along budgets of training FLOPs: what its runs cost, and its compute-optimal plans."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moe_jax.laws.choices import Choices
from moe_jax.laws.fitting import Fit
from moe_jax.laws.law import Law
from moe_jax.laws.planner import Plan, Planner
from moe_jax.laws.shapes import Shape
from moe_jax.text import number

BEYOND = 100.0  # how far past its dearest run a law is drawn
_WIDTHS = np.geomspace(8, 2e6, 600)


@dataclass(frozen=True)
class Runs:
    """The runs behind a law, by training FLOPs.

    flops: (rows,). measured: the column they were read from; "" where they follow from N, D and the planner's family
    of shapes."""

    flops: np.ndarray
    measured: str


def planner_of(law: Law, *, granularity: float | None = None, expansion_rate: float | None = None) -> Planner:
    """A planner whose vocabulary and sequence length are those of the runs; one G, one E where given.

    Raises UserError for a law that cannot plan a budget."""
    known = {k: number(law.data.constants.get(k)) for k in ("vocab_size", "sequence_length")}
    shape = Shape(**{k: int(v) for k, v in known.items() if v and v >= 1})
    choices = Choices(active_rate=_active_rate(law))
    if granularity is not None:
        choices = replace(choices, granularities=(granularity,))
    if expansion_rate is not None:
        choices = replace(choices, expansion_rates=(expansion_rate,))
    return Planner(law, shape=shape, choices=choices)


def without_samples(law: Law) -> Law:
    """The law alone: a plan under it is found once, not for every bootstrap sample."""
    return replace(law, samples={})


def runs_of(fitted: Fit, planner: Planner) -> Runs:
    """The FLOPs of the fit's runs, by the planner's formula."""
    table = fitted.rows.table
    for column in (planner.cost, *(["train_flops"] if planner.cost == "flops_6nd" else [])):
        if column in table and np.issubdtype(table[column].dtype, np.number) and (table[column] > 0).all():
            return Runs(table[column].to_numpy(float), column)
    return Runs(_of_shapes(planner, fitted.rows.columns), "")


def flops_per_token(planner: Planner, axes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Training FLOPs of a token of models whose N, and G, E or S, are given (…,), in the planner's family."""
    shape = np.broadcast_shapes(*(np.shape(v) for v in axes.values()))
    N = np.broadcast_to(axes["N"], shape).ravel()
    K = float(planner.experts.K[0])
    E = np.broadcast_to(axes.get("E", K / (1 - axes["S"]) if "S" in axes else planner.experts.E[0]), shape).ravel()
    G = np.broadcast_to(axes.get("G", planner.experts.G[0]), shape).ravel()
    found = np.empty(N.shape)
    for e, g in {*zip(E.tolist(), G.tolist(), strict=True)}:
        mine = (e == E) & (g == G)
        columns = planner.shape.columns(_WIDTHS, np.float64(e), np.float64(K), np.float64(g))
        sizes = planner.law.axes({**columns, "tokens": np.float64(1)})["N"]
        cost = planner.shape.flops_per_token(planner.cost, columns)
        found[mine] = np.exp(np.interp(np.log(N[mine]), np.log(sizes), np.log(cost)))
    return found.reshape(shape)


def budgets(flops: np.ndarray, beyond: float = BEYOND, n: int = 13) -> np.ndarray:
    """n budgets from the cheapest run to `beyond` times the dearest, within what a planner takes."""
    return np.geomspace(max(flops.min(), 1e12), min(max(flops.max(), 1e12) * beyond, 1e35), n)


def plans(planner: Planner, at: Sequence[float]) -> list[Plan]:
    """The compute-optimal plan of each budget."""
    return [planner.best(C) for C in at]


def axes_of(law: Law, found: Sequence[Plan]) -> dict[str, np.ndarray]:
    """The law's axes of plans, each (plans,)."""
    return law.axes({k: np.array([p.values[k] for p in found]) for k in found[0].values})


def cost_name(planner: Planner) -> str:
    """The cost formula as an axis names it."""
    return "6 N D" if planner.cost == "flops_6nd" else planner.cost.removeprefix("flops_")


def _of_shapes(planner: Planner, axes: Mapping[str, np.ndarray]) -> np.ndarray:
    return flops_per_token(planner, axes) * axes["D"]


def _active_rate(law: Law) -> float:
    known = number(law.data.constants.get("active_rate"))
    return float(known) if known and known > 0 else 1.0
