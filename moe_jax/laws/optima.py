"""The best use of a budget under a law: N*, D*, G* (and S*, E*), their intervals, and what other choices would cost."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from moe_jax import errors
from moe_jax.laws.law import Law
from moe_jax.laws.shapes import Shape

GRANULARITIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SPARSITIES = (0, 0.5, 0.75, 0.875, 0.9375, 0.96875, 0.984375)
_WIDTHS = (np.log(8.0), np.log(2e6))  # where d is searched: 1e3 to 1e18 parameters
_POINTS, _ROUNDS = 17, 11  # each round looks 8 times closer: ln d to 1e-9


@dataclass(frozen=True)
class Limits:
    """What a plan may not exceed. bytes_per_parameter: 2 to serve bf16, 16 to train with AdamW in mixed precision."""

    parameters: float = np.inf  # n_total
    memory_bytes: float = np.inf
    bytes_per_parameter: float = 16
    tokens: float = np.inf  # that are there: more budget then goes to a larger model

    @property
    def n_total(self) -> float:
        return min(self.parameters, self.memory_bytes / self.bytes_per_parameter)


@dataclass(frozen=True)
class Choices:
    """The discrete axes. Axes that the law has no term for keep one value."""

    granularities: Sequence[float] = GRANULARITIES
    expansion_rates: Sequence[float] | None = (
        None  # None: what the law was fitted at; for laws of S, those of SPARSITIES
    )
    active_rate: float = 1

    def combinations(self, law: Law) -> np.ndarray:
        """(choices, 3): E, K, G."""
        K = self.active_rate
        return np.array([(E, K, G) for E, G in itertools.product(self._rates(law), self._granularities(law))], float)

    def _granularities(self, law: Law) -> Sequence[float]:
        if "G" in law.form.symbols:
            return self.granularities
        return (float(law.fixed.get("granularity", 1)),)

    def _rates(self, law: Law) -> Sequence[float]:
        if self.expansion_rates is not None:
            if (least := min(self.expansion_rates)) < self.active_rate:
                raise errors.UserError(f"an expansion rate of {least:g} is below K = {self.active_rate:g}")
            return self.expansion_rates
        if "S" in law.form.symbols:
            return tuple(self.active_rate / (1 - S) for S in SPARSITIES)
        if "expansion_rate" in law.fixed:
            return (float(law.fixed["expansion_rate"]),)
        if "E" in law.form.symbols:
            return (1, 2, 4, 8, 16, 32)
        if "G" in law.form.symbols:
            raise errors.UserError(f"{law.law} does not know the expansion rate it holds for; --expansion_rate says it")
        return (1,)


@dataclass(frozen=True)
class Plan:
    """The optimum for one budget. values: results columns, tokens, loss and flops; bands: 80% of the bootstrap, by
    name."""

    values: Mapping[str, float]
    bands: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    outside: tuple[str, ...] = ()  # columns that lie outside what the law was fitted on
    at_limit: tuple[str, ...] = ()  # what stopped the search: tokens, parameters, the largest granularity, …


def optimum(
    law: Law,
    flops: Sequence[float],
    *,
    cost: str | None = None,
    shape: Shape | None = None,
    choices: Choices | None = None,
    limits: Limits | None = None,
) -> list[Plan]:
    """The plan of lowest loss for each budget.

    cost: a formula of shapes.COSTS; default the law's own. Widths are searched continuously, E and G over `choices`,
    for the law and for each of its bootstrap samples, which give the bands."""
    _refuse(law, flops)
    shape, choices, limits = shape or Shape(), choices or Choices(), limits or Limits()
    cost = cost or law.cost or "flops_6nd"
    combinations = choices.combinations(law)
    return [_plan(law, float(f), cost, shape, combinations, limits) for f in flops]


def plan_of_size(
    law: Law,
    n_active_nonemb: float,
    *,
    cost: str | None = None,
    shape: Shape | None = None,
    choices: Choices | None = None,
) -> Plan:
    """The budget for which a size is compute-optimal, and its plan, as krajewski2024's tables 2, 6 and 9 list them.

    Where the best G changes the best size jumps; a size within a jump gets the budget at which it jumps."""
    shape, choices = shape or Shape(), choices or Choices()
    cost, combinations = cost or law.cost or "flops_6nd", choices.combinations(law)

    def solve(coefficients, batch: tuple) -> dict[str, np.ndarray]:
        low, high = np.full(batch, np.log(1e15)), np.full(batch, np.log(1e30))
        for _ in range(28):
            middle = (low + high) / 2
            d, loss, _ = _search(law, coefficients, np.exp(middle)[..., None], cost, shape, combinations, Limits())
            values = _values(d, loss, np.exp(middle), cost, shape, combinations, Limits())
            small = values["n_active_nonemb"] < n_active_nonemb
            low, high = np.where(small, middle, low), np.where(small, high, middle)
        return values

    values = {k: float(v) for k, v in solve(law.coefficients, ()).items()}
    bands = {}
    if law.samples:
        many = solve({k: v[:, None] for k, v in law.samples.items()}, (len(next(iter(law.samples.values()))),))
        tails = [(1 - law.level) / 2, (1 + law.level) / 2]
        bands = {k: tuple(map(float, np.quantile(v, tails))) for k, v in many.items()}
    return Plan(values, bands, tuple(c for c, beyond in law.outside(values).items() if beyond))


def compute_ratio(
    plan_law: Law,
    plan: Plan,
    law: Law,
    combinations: np.ndarray,
    *,
    cost: str | None = None,
    shape: Shape | None = None,
    limits: Limits | None = None,
) -> tuple[float, tuple[float, float] | None]:
    """How many times the plan's FLOPs `law` needs with the best of `combinations` for the same loss, and its band.

    combinations: (choices, 3), E, K, G: [[1, 1, 1]] asks what a dense model needs, [[64, 1, 1]] what G = 1 costs.
    limits: the plan's, or none. inf where no budget reaches the loss. The band carries the plan's bootstrap samples
    through (and the law's, where it is the same law)."""
    cost, shape, flops = cost or plan_law.cost or "flops_6nd", shape or Shape(), plan.values["flops"]
    how = (cost, shape, combinations, limits or Limits())
    value = _flops_for(law, law.coefficients, np.array([plan.values["loss"]]), *how)[0] / flops
    if not plan_law.samples:
        return float(value), None
    axes = plan_law.axes({k: np.float64(v) for k, v in plan.values.items()})
    losses = plan_law.form.loss(axes, plan_law.samples)
    samples = law.samples if law is plan_law else law.coefficients
    spread = {k: np.asarray(v)[..., None] for k, v in samples.items()}
    many = _flops_for(law, spread, losses, *how) / flops
    tails = [(1 - plan_law.level) / 2, (1 + plan_law.level) / 2]
    return float(value), tuple(map(float, np.quantile(many, tails, method="nearest")))


def flops_for_loss(
    law: Law, losses: np.ndarray, combinations: np.ndarray, *, cost: str | None = None, shape: Shape | None = None
) -> np.ndarray:
    """FLOPs with which the best of `combinations` (E, K, G) reaches each loss (losses,); inf where it never does."""
    cost = cost or law.cost or "flops_6nd"
    return _flops_for(law, law.coefficients, np.asarray(losses, float), cost, shape or Shape(), combinations, Limits())


def _flops_for(law: Law, coefficients, loss: np.ndarray, cost, shape, combinations, limits) -> np.ndarray:
    """FLOPs with which the best of `combinations` reaches each loss (losses,), by bisection; inf where it never
    does."""

    def above(log_flops):
        budget = np.exp(log_flops)[..., None]
        reached = _search(law, coefficients, budget, cost, shape, combinations, limits)[1].min(-1)
        return reached > loss * (1 + 1e-9)  # the plan itself reaches its own loss

    low, high = np.full(loss.shape, np.log(1e10)), np.full(loss.shape, np.log(1e40))
    never = above(high)
    for _ in range(40):
        middle = (low + high) / 2
        short = above(middle)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return np.where(never, np.inf, np.exp((low + high) / 2))


def _plan(law, flops, cost, shape, combinations, limits) -> Plan:
    d, loss, edge = _search(law, law.coefficients, flops, cost, shape, combinations, limits)
    if not np.isfinite(loss).any():
        raise errors.UserError(
            f"{flops:.3g} FLOPs on at most {limits.tokens:.3g} tokens and {limits.n_total:.3g} parameters: no model"
            " of this shape fits these limits"
        )
    values = _values(d, loss, flops, cost, shape, combinations, limits)
    values = {k: float(v) for k, v in values.items()}
    bands = {}
    if law.samples:
        samples = {k: v[:, None] for k, v in law.samples.items()}
        many = _values(
            *_search(law, samples, flops, cost, shape, combinations, limits)[:2],
            flops,
            cost,
            shape,
            combinations,
            limits,
        )
        tails = [(1 - law.level) / 2, (1 + law.level) / 2]
        bands = {k: tuple(map(float, np.quantile(v, tails))) for k, v in many.items()}
    outside = tuple(c for c, beyond in law.outside(values).items() if beyond)
    return Plan(values, bands, outside, _at_limit(values, combinations, limits, bool(edge[np.argmin(loss)]), law))


def _search(law, coefficients, flops, cost, shape, combinations, limits):
    """(d, loss, at the edge of the widths) for every combination, (…, choices), by zooming grids over ln d.

    coefficients: numbers, or arrays (…, 1) that broadcast against the combinations.
    """
    E, K, G = combinations.T
    batch = np.broadcast_shapes(*(np.shape(v) for v in coefficients.values()), np.shape(flops), E.shape)
    low, high = np.full(batch, _WIDTHS[0]), np.full(batch, _WIDTHS[1])
    spread = {k: np.asarray(v)[..., None] for k, v in coefficients.items()}
    budget = np.asarray(flops, float)[..., None]
    for _ in range(_ROUNDS):
        at = low[..., None] + (high - low)[..., None] * np.linspace(0, 1, _POINTS)
        columns = shape.columns(np.exp(at), E[:, None], K[:, None], G[:, None])
        tokens = np.minimum(budget / shape.flops_per_token(cost, columns), limits.tokens)
        axes = law.axes({**columns, "tokens": tokens})
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            loss = law.form.loss(axes, spread)
        loss = np.where(columns["n_total"] <= limits.n_total, loss, np.inf)
        best = np.argmin(loss, -1)[..., None]
        picked = np.take_along_axis(loss, best, -1)[..., 0]
        center = np.take_along_axis(at, best, -1)[..., 0]
        step = (high - low) / (_POINTS - 1)
        low, high = np.maximum(center - step, _WIDTHS[0]), np.minimum(center + step, _WIDTHS[1])
    edge = (center <= _WIDTHS[0] + 1e-3) | (center >= _WIDTHS[1] - 1e-3)
    return np.exp(center), picked, edge


def _values(d, loss, flops, cost, shape, combinations, limits) -> dict[str, np.ndarray]:
    """Columns of the best combination, (…,)."""
    best = np.argmin(loss, -1)
    E, K, G = combinations[best].T if best.ndim else combinations[best]
    width = np.take_along_axis(d, best[..., None], -1)[..., 0]
    columns = shape.columns(width, E, K, G)
    tokens = np.minimum(flops / shape.flops_per_token(cost, columns), limits.tokens)
    return {
        "flops": tokens * shape.flops_per_token(cost, columns),
        "loss": np.take_along_axis(loss, best[..., None], -1)[..., 0],
        **columns,
        "tokens": tokens,
    }


def _at_limit(values, combinations, limits, edge: bool, law: Law) -> tuple[str, ...]:
    said = []
    if values["tokens"] >= 0.999 * limits.tokens:
        said.append("tokens")
    if values["n_total"] >= 0.999 * limits.n_total:
        said.append("parameters")
    for i, name in ((0, "expansion_rate"), (2, "granularity")):
        tried = np.unique(combinations[:, i])
        if len(tried) > 1 and values[name] in (tried[0], tried[-1]):
            said.append(f"{name} (the {'smallest' if values[name] == tried[0] else 'largest'} tried)")
    if edge:
        said.append("width (the law has no optimum here)")
    return tuple(said)


def _refuse(law: Law, flops: Sequence[float]) -> None:
    if not {"N", "D"} <= set(law.form.symbols):
        raise errors.UserError(f"{law.law} has no {'D' if 'N' in law.form.symbols else 'N'}: it cannot plan a budget")
    if bad := [f for f in flops if not 1e12 <= f <= 1e35]:
        raise errors.UserError(f"{bad[0]:g} FLOPs is no training budget; 1e12 to 1e35 are")
