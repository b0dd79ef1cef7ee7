"""Compute-optimal plans under a law: N, D, G (and S, E) of lowest loss for a budget, with intervals.

    planner = laws.Planner(law, choices=laws.Choices(expansion_rates=[64]))
    plan = planner.best(1e20)
    coarse = replace(planner, choices=laws.Choices(expansion_rates=[64], granularities=[1]))
    planner.compute_ratio(plan, coarse)    # how many times the FLOPs G = 1 needs for the same loss

The width is searched continuously, E, K and G over the choices, for the law and for each of its bootstrap samples.
With a speed (see speed) the budget is time instead: Planner(law, speed=speed).best(3600 * chip_hours).

Shapes: a batch of searches (…,) over (combinations,) of E, K, G, as `Choices.experts` lists them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from moe_jax import errors
from moe_jax.flops import FORMULAS
from moe_jax.laws.choices import Choices, Experts, Limits
from moe_jax.laws.forms import LOSS
from moe_jax.laws.intervals import central, tails
from moe_jax.laws.law import Law
from moe_jax.laws.meaning import columns_meant
from moe_jax.laws.reach import Reach, reach
from moe_jax.laws.shapes import Shape
from moe_jax.laws.speed import Speed
from moe_jax.text import short

_LOG_WIDTHS = (np.log(8.0), np.log(2e6))  # bounds of ln d: models of 1e3 to 1e18 parameters
_POINTS, _ROUNDS = 17, 11  # each round zooms in 8 times: ln d to 1e-9
_POINTS_OF_TIME = 129  # of the first round over seconds, which measured speeds may make uneven
_MOST = 2_000_000  # points of one grid: 16 MB an array
_FLOPS, _SECONDS = (1e12, 1e35), (1e-3, 1e15)  # what a budget may be
_NO_LIMITS = Limits()


@dataclass(frozen=True)
class Plan:
    """A compute-optimal model and its training.

    values: flops, loss (nats), tokens, the columns of Shape.columns, and chip_seconds under a speed. intervals: the
    central `law.level` of the bootstrap samples, by the same names; empty without samples."""

    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    outside: tuple[str, ...] = ()  # columns outside the range that the law was fitted on
    at_limit: tuple[str, ...] = ()  # what stopped the search: tokens, parameters, the largest granularity, …
    reach: Reach = field(default_factory=Reach)  # how far it lies from the runs behind the law
    impossible: str = ""  # why no such model or training exists; "" for a plan that can be carried out


@dataclass(frozen=True)
class _Found:
    """The best width of every combination, each array (…, combinations)."""

    d: np.ndarray
    loss: np.ndarray
    at_edge: np.ndarray  # True where the best width is a bound of the search


@dataclass(frozen=True, eq=False)
class Planner:
    """Plans training runs under one law, for one family of models.

    cost: a FLOP formula (flops.FORMULAS); default the law's own, else 6ND. counts: what a symbol of the law counts
    ({"N": "n_total"}), needed where the fit read it from a column whose name does not say. speed: budgets are then
    seconds of one chip instead of FLOPs. Raises UserError for a law without N and D or of another quantity, an unknown
    formula, an N of unknown meaning, or choices that the law cannot be asked about."""

    law: Law
    cost: str | None = None
    shape: Shape = field(default_factory=Shape)
    choices: Choices = field(default_factory=Choices)
    limits: Limits = field(default_factory=Limits)
    counts: Mapping[str, str] = field(default_factory=dict)
    speed: Speed | None = None
    meant: Mapping[str, str] = field(init=False, repr=False)  # symbol -> the column of a shape that it counts
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
        object.__setattr__(self, "meant", columns_meant(self.law, self.counts))
        object.__setattr__(self, "experts", self.choices.experts(self.law))

    def best(self, budget: float) -> Plan:
        """The plan of lowest loss for a budget of training FLOPs (chip-seconds under a speed), within the limits.

        Raises UserError for a budget outside 1e12 to 1e35 FLOPs, and where no model fits the limits."""
        budget = self._checked(budget)
        found = self._search(self.law.coefficients, budget, self.limits)
        if not np.isfinite(found.loss).any():
            raise errors.UserError(f"{self._said(budget)} and {self.limits}: no model of this shape fits these limits")
        values = _numbers(self._columns(found, budget, self.limits))
        intervals = central(self.sampled(budget), self.law.level) if self.law.samples else {}
        at_edge = bool(found.at_edge[np.argmin(found.loss)])
        return self._plan(values, intervals, self._at_limit(values, at_edge))

    def sampled(self, budget: float) -> dict[str, np.ndarray]:
        """The columns of `Plan.values` under each of the law's bootstrap samples, each (samples,)."""
        found = self._search(_per_sample(self.law.samples), budget, self.limits)
        return self._columns(found, budget, self.limits)

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
        return self._plan(values, intervals)

    def flops_for(self, losses: Sequence[float]) -> np.ndarray:
        """The fewest training FLOPs (chip-seconds under a speed) that reach each loss (losses,), within the limits.

        inf where none do."""
        return self._flops_for(self.law.coefficients, np.asarray(losses, float))

    def compute_ratio(self, plan: Plan, other: "Planner") -> tuple[float, tuple[float, float] | None]:
        """How many times the FLOPs (chip-seconds) of `plan` the best plan of `other` needs for its loss, with interval.

        inf where `other` never reaches the loss. The interval carries the bootstrap samples of this law through, and
        those of `other` where it has the same law; None without samples."""
        spent = plan.values[self._unit]
        ratio = float(other.flops_for([plan.values["loss"]])[0] / spent)
        if not self.law.samples:
            return ratio, None
        axes = self._axes({k: np.float64(v) for k, v in plan.values.items()})
        losses = self.law.form.loss(axes, self.law.samples)
        coefficients = other.law.samples if other.law is self.law else other.law.coefficients
        sampled = other._flops_for(_per_sample(coefficients), losses) / spent
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

        ends = np.log((1e10, 1e40) if self.speed is None else (1e-6, 1e30))
        low, high = np.full(losses.shape, ends[0]), np.full(losses.shape, ends[1])
        never = above(high)
        for _ in range(40):
            middle = (low + high) / 2
            short = above(middle)
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return np.where(never, np.inf, np.exp((low + high) / 2))

    @property
    def _unit(self) -> str:
        """The column of a plan's values that the budget bounds."""
        return "flops" if self.speed is None else "chip_seconds"

    def _per_token(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """What one token costs, in the budget's unit."""
        if self.speed is None:
            return self.shape.flops_per_token(self.cost, columns)
        return self.speed.seconds_per_token(self.shape, columns)

    def _axes(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The law's symbols, each as the law counts it."""
        if missing := [column for column in self.meant.values() if column not in columns]:
            raise errors.UserError(f"{self.law.name} needs {missing[0]}, which no plan sets: it cannot plan a budget")
        return {symbol: columns[column] for symbol, column in self.meant.items()}

    def _checked(self, budget: float) -> float:
        budget, (low, high) = float(budget), _FLOPS if self.speed is None else _SECONDS
        if not low <= budget <= high:
            what = f"{low:g} to {high:g}"
            raise errors.UserError(f"{self._said(budget)} is not a training budget; give {what}")
        return budget

    def _said(self, budget: float) -> str:
        return f"{budget:.3g} {'FLOPs' if self.speed is None else 'chip-seconds'}"

    def _search(self, coefficients, budget, limits: Limits) -> _Found:
        """`_search_at_once`, of no more searches at a time than memory holds."""
        rows = max((len(v) for v in [*coefficients.values(), budget] if np.ndim(v) > 1), default=1)
        at_once = max(1, _MOST // (_POINTS_OF_TIME * len(self.experts.E)))
        if rows <= at_once:
            return self._search_at_once(coefficients, budget, limits)
        parts = []
        for i in range(0, rows, at_once):
            mine = slice(i, i + at_once)
            some = {k: v[mine] if np.ndim(v) > 1 and len(v) > 1 else v for k, v in coefficients.items()}
            spent = budget[mine] if np.ndim(budget) > 1 and len(budget) > 1 else budget
            parts.append(self._search_at_once(some, spent, limits))
        return _Found(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(_Found)))

    def _search_at_once(self, coefficients, budget, limits: Limits) -> _Found:
        """The best width of every combination, by zooming grids over ln d.

        coefficients: numbers, or arrays (…, 1) that broadcast against the combinations; budget likewise."""
        E, K, G = self.experts.E, self.experts.K, self.experts.G
        batch = np.broadcast_shapes(*(np.shape(v) for v in coefficients.values()), np.shape(budget), E.shape)
        low, high = np.full(batch, _LOG_WIDTHS[0]), np.full(batch, _LOG_WIDTHS[1])
        spread = {k: np.asarray(v)[..., None] for k, v in coefficients.items()}
        spent = np.asarray(budget, float)[..., None]
        for i in range(_ROUNDS):
            points = _POINTS_OF_TIME if i == 0 and self.speed is not None else _POINTS
            at = low[..., None] + (high - low)[..., None] * np.linspace(0, 1, points)
            columns = self.shape.columns(np.exp(at), E[:, None], K[:, None], G[:, None])
            tokens = np.minimum(spent / self._per_token(columns), limits.tokens)
            axes = self._axes({**columns, **_training(tokens, limits)})
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                loss = self.law.form.loss(axes, spread)
            loss = np.where(columns["n_total"] <= limits.n_total, loss, np.inf)
            best = np.argmin(loss, -1)[..., None]
            lowest = np.take_along_axis(loss, best, -1)[..., 0]
            center = np.take_along_axis(at, best, -1)[..., 0]
            step = (high - low) / (points - 1)
            low, high = np.maximum(center - step, _LOG_WIDTHS[0]), np.minimum(center + step, _LOG_WIDTHS[1])
        at_edge = (center <= _LOG_WIDTHS[0] + 1e-3) | (center >= _LOG_WIDTHS[1] - 1e-3)
        return _Found(np.exp(center), lowest, at_edge)

    def _columns(self, found: _Found, budget, limits: Limits) -> dict[str, np.ndarray]:
        """flops, loss, tokens and the columns of the best combination, each (…,); chip_seconds under a speed."""
        best = np.argmin(found.loss, -1)
        E, K, G = (values[best] for values in (self.experts.E, self.experts.K, self.experts.G))
        columns = self.shape.columns(np.take_along_axis(found.d, best[..., None], -1)[..., 0], E, K, G)
        tokens = np.minimum(budget / self._per_token(columns), limits.tokens)
        loss = np.take_along_axis(found.loss, best[..., None], -1)[..., 0]
        known = _training(tokens, limits)
        if "unique_tokens" not in self.law.form.columns.values():
            known.pop("unique_tokens")
        flops = tokens * self.shape.flops_per_token(self.cost, columns)
        values = {"flops": flops, "loss": loss, **columns, **known}
        if self.speed is not None:
            values["chip_seconds"] = tokens * self.speed.seconds_per_token(self.shape, columns)
        return values

    def _plan(self, values: dict[str, float], intervals, at_limit: tuple[str, ...] = ()) -> Plan:
        reached = reach(self.law, values, self.cost, self.shape, self.meant)
        return Plan(values, intervals, tuple(reached.columns), at_limit, reached, _impossible(values))

    def _at_limit(self, values: Mapping[str, float], at_edge: bool) -> tuple[str, ...]:
        reached = []
        if values["tokens"] >= 0.999 * self.limits.tokens:
            reached.append("tokens")
        if (unique := values.get("unique_tokens", np.inf)) < 0.999 * values["tokens"]:
            reached.append(f"unique tokens (read {values['tokens'] / unique:.3g} times)")
        if values["n_total"] >= 0.999 * self.limits.n_total:
            reached.append(self.limits.size_limit)
        experts, choices = self.experts, self.choices
        for name, tried, named in (
            ("expansion_rate", experts.E, choices.expansion_rates),
            ("active_rate", experts.K, choices.active_rate),
            ("granularity", experts.G, choices.granularities),
        ):
            if tried.min() < tried.max() and values[name] in (tried.min(), tried.max()):
                where = "tried" if choices.extrapolate or named is not None else "tried, within the law's data"
                reached.append(f"{name} (the {'smallest' if values[name] == tried.min() else 'largest'} {where})")
        if at_edge:
            reached.append("width (the law has no optimum here)")
        return tuple(reached)


def _training(tokens: np.ndarray, limits: Limits) -> dict[str, np.ndarray]:
    """The columns of a training on `tokens`, of which as many are different ones as there are."""
    return {"tokens": tokens, "unique_tokens": np.minimum(tokens, limits.unique_tokens)}


def _impossible(values: Mapping[str, float]) -> str:
    """Why no such model or training exists. A law whose optimum is such a plan does not hold there."""
    n, layers = values["n_active_nonemb"], values["n_layers"]
    if layers >= 0.5 and values["tokens"] < 1e6 * n:
        return ""
    return (
        f"{short(n)} active parameters ({layers:.2g} layers of width {values['d_model']:.3g}) on"
        f" {short(values['tokens'])} tokens: no such training exists, so the law has no optimum there that can be used"
    )


def _per_sample(samples: Mapping) -> dict[str, np.ndarray]:
    """Bootstrap samples (samples,) as (samples, 1), to broadcast against the combinations; numbers as (1,)."""
    return {k: np.asarray(v)[..., None] for k, v in samples.items()}


def _numbers(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {k: float(v) for k, v in columns.items()}
