"""What a plan may choose from (expansion rates E, active rates K, granularities G), and what it may not exceed."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moe_jax import errors
from moe_jax.laws.law import Law
from moe_jax.text import number

GRANULARITIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
EXPANSION_RATES = (1, 2, 4, 8, 16, 32)
SPARSITIES = (0, 0.5, 0.75, 0.875, 0.9375, 0.96875, 0.984375)


@dataclass(frozen=True)
class Limits:
    """Upper limits of a plan. bytes_per_parameter: 2 to serve bf16, 16 to train with AdamW in mixed precision."""

    parameters: float = np.inf  # n_total
    memory_bytes: float = np.inf
    bytes_per_parameter: float = 16
    tokens: float = np.inf  # tokens available; a larger budget then goes to a larger model
    unique_tokens: float = np.inf  # different ones, of a law that says what reading them again is worth

    @property
    def n_total(self) -> float:
        """The most parameters that both limits allow."""
        return min(self.parameters, self.memory_bytes / self.bytes_per_parameter)

    @property
    def size_limit(self) -> str:
        """The name of the limit that bounds the size: memory, or parameters."""
        return "memory" if self.memory_bytes / self.bytes_per_parameter < self.parameters else "parameters"

    def __str__(self) -> str:
        """The limits that there are: "at most 1e+11 tokens and 10 parameters"."""
        limits = [(self.tokens, "tokens"), (self.parameters, "parameters"), (self.memory_bytes, "bytes of memory")]
        said = " and ".join(f"{limit:.3g} {what}" for limit, what in limits if np.isfinite(limit))
        return f"at most {said}" if said else "no limits"


@dataclass(frozen=True)
class Experts:
    """Combinations of expansion rate E, active rate K and granularity G, each (combinations,)."""

    E: np.ndarray
    K: np.ndarray
    G: np.ndarray


@dataclass(frozen=True)
class Choices:
    """The expansion rates, active rates and granularities to choose from.

    granularities: None is 1, 2, 4, … 256 for a law with a term for G; another law keeps the granularity of the runs it
    was fitted to. expansion_rates: None is the rate at which the law was fitted, or those of SPARSITIES for a law with
    a term for S. extrapolate: False keeps to the E, K and G that the law's data had, where they are known."""

    granularities: Sequence[float] | None = None
    expansion_rates: Sequence[float] | None = None
    active_rate: float | Sequence[float] = 1
    extrapolate: bool = True

    def experts(self, law: Law) -> Experts:
        """Every combination under a law.

        Raises UserError for a rate or granularity of 0 or less, for E < K, where the law holds for an unknown E, and,
        unless `extrapolate`, for an E, K or G that its data did not have."""
        rates = np.atleast_1d(np.asarray(self.active_rate, float)).tolist()
        asked = {"granularity": self.granularities, "expansion_rate": self.expansion_rates, "active_rate": rates}
        for column, values in asked.items():
            if values is not None and not min(values) > 0:
                raise errors.UserError(f"{column} {min(values):g} is no {column.replace('_', ' ')}; it is above 0")
        if self.expansion_rates is not None and (least := min(self.expansion_rates)) < min(rates):
            raise errors.UserError(f"an expansion rate of {least:g} is below K = {min(rates):g}")
        if not self.extrapolate:
            _refuse_new(law, asked)
        triples = [
            (E, K, G)
            for K in rates
            for E, G in itertools.product(self._expansion_rates(law, K), self._granularities(law))
            if E >= K
        ]
        if not triples:
            raise errors.UserError(f"no expansion rate of {law.name}'s runs is {min(rates):g} (K) or more; name one")
        return Experts(*np.array(triples, float).T)

    def _granularities(self, law: Law) -> Sequence[float]:
        if self.granularities is not None:
            return self.granularities
        if "G" in law.form.symbols or "top_k" in law.form.columns.values():  # top_k = K·G
            return self._seen(law, "granularity", GRANULARITIES)
        return (_constant(law, "granularity", 1),)

    def _expansion_rates(self, law: Law, K: float) -> Sequence[float]:
        if self.expansion_rates is not None:
            return self.expansion_rates
        if "S" in law.form.symbols:
            return tuple(K / (1 - S) for S in self._seen(law, "sparsity", SPARSITIES))
        if "expansion_rate" in law.data.constants:
            return (_constant(law, "expansion_rate"),)
        if "E" in law.form.symbols or {"n_total", "n_active"} <= set(law.form.columns.values()):
            return self._seen(law, "expansion_rate", EXPANSION_RATES)
        if "G" in law.form.symbols:
            raise errors.UserError(
                f"{law.name} does not say at which expansion rate it holds; --expansion_rate (expansion_rates) names it"
            )
        return (1,)

    def _seen(self, law: Law, column: str, usual: Sequence[float]) -> Sequence[float]:
        """The usual values, without `extrapolate` those in the range of the law's data, or its ends."""
        known = data_range(law, column)
        if self.extrapolate or known is None:
            return usual
        return tuple(v for v in usual if known[0] <= v <= known[1]) or tuple(dict.fromkeys(known))


def data_range(law: Law, column: str) -> tuple[float, float] | None:
    """(min, max) of a column in the rows behind a law; None where it is not known."""
    if column in law.data.constants:
        value = number(law.data.constants[column])
        return None if value is None else (float(value), float(value))
    for symbol, own in law.form.columns.items():
        source = law.data.columns.get(symbol, own)
        if column in (own, source) and source in law.data.range:
            return law.data.range[source]
    return None


def other_experts(law: Law, columns: Mapping[str, Sequence]) -> dict[str, np.ndarray]:
    """Where runs have another E, G or K than all rows behind the law had, for which it has no term: column -> mask.

    columns: of results.csv, (runs,); an empty cell is no other value."""
    found = {}
    for column in ("expansion_rate", "granularity", "active_rate"):
        ends = data_range(law, column) if column in law.data.constants else None
        if ends is not None and column in columns:
            values = np.array([np.nan if v is None else v for v in columns[column]], float)
            found[column] = (values < ends[0]) | (values > ends[1])
    return found


def _refuse_new(law: Law, asked: dict[str, Sequence[float] | None]) -> None:
    """Raises UserError for a value that lies outside what the rows behind the law had."""
    for column, values in asked.items():
        known = data_range(law, column)
        if values is None or known is None:
            continue
        low, high = known
        if beyond := [v for v in values if not low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]:
            had = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            raise errors.UserError(
                f"{column} {beyond[0]:g} is not in the data of {law.name}, which had {had}: what the law says of it is"
                " a guess; --extrapolate plans with it"
            )


def _constant(law: Law, column: str, default: float = 1) -> float:
    """The value that a column had in all rows of the fit. Raises UserError where that is no number above 0."""
    value = number(law.data.constants.get(column, default))
    if value is None or value <= 0:
        raise errors.UserError(f"{law.name} was fitted where {column} is {law.data.constants[column]!r:.40}; fit again")
    return float(value)


DENSE = Choices(granularities=(1,), expansion_rates=(1,))
