"""Compute-optimal plans under a law: N, D, G (and S, E) of lowest loss for a budget, with intervals.

    planner = laws.Planner(law, choices=laws.Choices(expansion_rates=[64]))
    plan = planner.best(1e20)
    coarse = replace(planner, choices=laws.Choices(expansion_rates=[64], granularities=[1]))
    planner.compute_ratio(plan, coarse)    # how many times the FLOPs G = 1 needs for the same loss

The width is searched continuously, E and G over the choices, for the law and for each of its bootstrap samples.

Shapes: a batch of searches (…,) over (combinations,) of E, K, G, as `Choices.experts` lists them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from moe_jax import errors
from moe_jax.flops import FORMULAS
from moe_jax.laws.choices import Choices, Experts, Limits
from moe_jax.laws.forms import LOSS
from moe_jax.laws.intervals import central, tails
from moe_jax.laws.law import Law
from moe_jax.laws.shapes import Shape

_LOG_WIDTHS = (np.log(8.0), np.log(2e6))  # bounds of ln d: models of 1e3 to 1e18 parameters
_POINTS, _ROUNDS = 17, 11  # each round zooms in 8 times: ln d to 1e-9
_NO_LIMITS = Limits()


@dataclass(frozen=True)
class Plan:
    """A compute-optimal model and its training.

    values: flops, loss (nats), tokens and the columns of Shape.columns. intervals: the central `law.level` of the
    bootstrap samples, by the same names; empty without samples."""

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    outside: tuple[str, ...] = ()  # columns outside the range that the law was fitted on
    at_limit: tuple[str, ...] = ()  # what stopped the search: tokens, parameters, the largest granularity, …


@dataclass(frozen=True)
class _Found:
    """The best width of every combination, each array (…, combinations)."""

    d: np.ndarray
    loss: np.ndarray
    at_edge: np.ndarray  # True where the best width is a bound of the search


@dataclass(frozen=True, eq=False)
class Planner:
    """Plans training runs under one law, for one family of models.

    cost: a FLOP formula (flops.FORMULAS); default the law's own, else 6ND. Raises UserError for a law without N and D
    or of another quantity, an unknown formula, or choices that the law cannot be asked about."""

    law: Law
    cost: str | None = None
    shape: Shape = field(default_factory=Shape)
    choices: Choices = field(default_factory=Choices)
    limits: Limits = field(default_factory=Limits)
    experts: Experts = field(init=False, repr=False)  # what the choices are under this law

    def __post_init__(self):
        self.law.require(LOSS)
        if missing := [s for s in "ND" if s not in self.law.form.symbols]:
            raise errors.UserError(
                f"{self.law.name} has no {missing[0]}: it cannot plan a budget; take a law over N and D"
            )
        object.__setattr__(self, "cost", self.cost or self.law.form.cost or "flops_6nd")
        if self.cost not in FORMULAS:
            raise errors.UserError(f"there is no cost formula {self.cost!r}; there are {', '.join(FORMULAS)}")
        object.__setattr__(self, "experts", self.choices.experts(self.law))

    def best(self, flops: float) -> Plan:
        """The plan of lowest loss for a budget of training FLOPs, within the limits.

        Raises UserError for a budget outside 1e12 to 1e35 FLOPs, and where no model fits the limits."""
        flops = float(flops)
        if not 1e12 <= flops <= 1e35:
            raise errors.UserError(f"{flops:g} FLOPs is not a training budget; give 1e12 to 1e35")
        found = self._search(self.law.coefficients, flops, self.limits)
        if not np.isfinite(found.loss).any():
            raise errors.UserError(
                f"{flops:.3g} FLOPs on at most {self.limits.tokens:.3g} tokens and {self.limits.n_total:.3g}"
                " parameters: no model of this shape fits these limits"
            )
        values = _numbers(self._columns(found, flops, self.limits))
        intervals = {}
        if self.law.samples:
            sampled = self._search(_per_sample(self.law.samples), flops, self.limits)
            intervals = central(self._columns(sampled, flops, self.limits), self.law.level)
        at_edge = bool(found.at_edge[np.argmin(found.loss)])
        return Plan(values, intervals, self._outside(values), self._at_limit(values, at_edge))

    def of_size(self, n_active_nonemb: float) -> Plan:
        """The plan whose budget makes a size compute-optimal, as in tables 2, 6 and 9 of krajewski2024.

        The best size jumps where the best G changes; a size within a jump gets the budget of the jump. The limits do
        not apply: the size is given."""
        values = _numbers(self._columns_of_size(n_active_nonemb, self.law.coefficients, ()))
        intervals = {}
        if samples := self.law.samples:
            batch = (len(next(iter(samples.values()))),)
            sampled = self._columns_of_size(n_active_nonemb, _per_sample(samples), batch)
            intervals = central(sampled, self.law.level)
        return Plan(values, intervals, self._outside(values))

    def flops_for(self, losses: Sequence[float]) -> np.ndarray:
        """The fewest training FLOPs that reach each loss (losses,), within the limits; inf where none do."""
        return self._flops_for(self.law.coefficients, np.asarray(losses, float))

    def compute_ratio(self, plan: Plan, other: "Planner") -> tuple[float, tuple[float, float] | None]:
        """How many times the FLOPs of `plan` the best plan of `other` needs for the same loss, and its interval.

        inf where `other` never reaches the loss. The interval carries the bootstrap samples of this law through, and
        those of `other` where it has the same law; None without samples."""
        flops = plan.values["flops"]
        ratio = float(other.flops_for([plan.values["loss"]])[0] / flops)
        if not self.law.samples:
            return ratio, None
        axes = self.law.axes({k: np.float64(v) for k, v in plan.values.items()})
        losses = self.law.form.loss(axes, self.law.samples)
        coefficients = other.law.samples if other.law is self.law else other.law.coefficients
        sampled = other._flops_for(_per_sample(coefficients), losses) / flops
        low, high = np.quantile(sampled, tails(self.law.level), method="nearest")
        return ratio, (float(low), float(high))

    def _columns_of_size(self, n_active_nonemb: float, coefficients, batch: tuple[int, ...]) -> dict[str, np.ndarray]:
        low, high = np.full(batch, np.log(1e15)), np.full(batch, np.log(1e30))
        for _ in range(28):
            middle = (low + high) / 2
            found = self._search(coefficients, np.exp(middle)[..., None], _NO_LIMITS)
            columns = self._columns(found, np.exp(middle), _NO_LIMITS)
            small = columns["n_active_nonemb"] < n_active_nonemb
            low, high = np.where(small, middle, low), np.where(small, high, middle)
        return columns

    def _flops_for(self, coefficients, losses: np.ndarray) -> np.ndarray:
        """The fewest FLOPs for each loss (losses,), by bisection; coefficients are numbers or (losses, 1)."""

        def above(log_flops):
            reached = self._search(coefficients, np.exp(log_flops)[..., None], self.limits).loss.min(-1)
            return reached > losses * (1 + 1e-9)  # a plan itself reaches its own loss

        low, high = np.full(losses.shape, np.log(1e10)), np.full(losses.shape, np.log(1e40))
        never = above(high)
        for _ in range(40):
            middle = (low + high) / 2
            short = above(middle)
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return np.where(never, np.inf, np.exp((low + high) / 2))

    def _search(self, coefficients, flops, limits: Limits) -> _Found:
        """The best width of every combination, by zooming grids over ln d.

        coefficients: numbers, or arrays (…, 1) that broadcast against the combinations; flops likewise."""
        E, K, G = self.experts.E, self.experts.K, self.experts.G
        batch = np.broadcast_shapes(*(np.shape(v) for v in coefficients.values()), np.shape(flops), E.shape)
        low, high = np.full(batch, _LOG_WIDTHS[0]), np.full(batch, _LOG_WIDTHS[1])
        spread = {k: np.asarray(v)[..., None] for k, v in coefficients.items()}
        budget = np.asarray(flops, float)[..., None]
        for _ in range(_ROUNDS):
            at = low[..., None] + (high - low)[..., None] * np.linspace(0, 1, _POINTS)
            columns = self.shape.columns(np.exp(at), E[:, None], K[:, None], G[:, None])
            tokens = np.minimum(budget / self.shape.flops_per_token(self.cost, columns), limits.tokens)
            axes = self.law.axes({**columns, **_training(tokens, limits)})
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                loss = self.law.form.loss(axes, spread)
            loss = np.where(columns["n_total"] <= limits.n_total, loss, np.inf)
            best = np.argmin(loss, -1)[..., None]
            lowest = np.take_along_axis(loss, best, -1)[..., 0]
            center = np.take_along_axis(at, best, -1)[..., 0]
            step = (high - low) / (_POINTS - 1)
            low, high = np.maximum(center - step, _LOG_WIDTHS[0]), np.minimum(center + step, _LOG_WIDTHS[1])
        at_edge = (center <= _LOG_WIDTHS[0] + 1e-3) | (center >= _LOG_WIDTHS[1] - 1e-3)
        return _Found(np.exp(center), lowest, at_edge)

    def _columns(self, found: _Found, flops, limits: Limits) -> dict[str, np.ndarray]:
        """flops, loss, tokens and the columns of the best combination, each (…,)."""
        best = np.argmin(found.loss, -1)
        E, K, G = (values[best] for values in (self.experts.E, self.experts.K, self.experts.G))
        columns = self.shape.columns(np.take_along_axis(found.d, best[..., None], -1)[..., 0], E, K, G)
        per_token = self.shape.flops_per_token(self.cost, columns)
        tokens = np.minimum(flops / per_token, limits.tokens)
        loss = np.take_along_axis(found.loss, best[..., None], -1)[..., 0]
        known = _training(tokens, limits)
        if "unique_tokens" not in self.law.form.columns.values():
            known.pop("unique_tokens")
        return {"flops": tokens * per_token, "loss": loss, **columns, **known}

    def _outside(self, values: Mapping[str, float]) -> tuple[str, ...]:
        return tuple(column for column, outside in self.law.outside(values).items() if outside)

    def _at_limit(self, values: Mapping[str, float], at_edge: bool) -> tuple[str, ...]:
        reached = []
        if values["tokens"] >= 0.999 * self.limits.tokens:
            reached.append("tokens")
        if (unique := values.get("unique_tokens", np.inf)) < 0.999 * values["tokens"]:
            reached.append(f"unique tokens (read {values['tokens'] / unique:.3g} times)")
        if values["n_total"] >= 0.999 * self.limits.n_total:
            reached.append("parameters")
        for name, tried in (("expansion_rate", self.experts.E), ("granularity", self.experts.G)):
            if tried.min() < tried.max() and values[name] in (tried.min(), tried.max()):
                reached.append(f"{name} (the {'smallest' if values[name] == tried.min() else 'largest'} tried)")
        if at_edge:
            reached.append("width (the law has no optimum here)")
        return tuple(reached)


def _training(tokens: np.ndarray, limits: Limits) -> dict[str, np.ndarray]:
    """The columns of a training on `tokens`, of which as many are different ones as there are."""
    return {"tokens": tokens, "unique_tokens": np.minimum(tokens, limits.unique_tokens)}


def _per_sample(samples: Mapping) -> dict[str, np.ndarray]:
    """Bootstrap samples (samples,) as (samples, 1), to broadcast against the combinations; numbers as (1,)."""
    return {k: np.asarray(v)[..., None] for k, v in samples.items()}


def _numbers(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {k: float(v) for k, v in columns.items()}
