"""What a plan may choose from (expansion rates, granularities), and what it may not exceed (parameters, tokens)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moe_jax import errors
from moe_jax.laws.law import Law
from moe_jax.text import number

GRANULARITIES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
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


@dataclass(frozen=True)
class Experts:
    """Combinations of expansion rate E, active rate K and granularity G, each (combinations,)."""

    E: np.ndarray
    K: np.ndarray
    G: np.ndarray


@dataclass(frozen=True)
class Choices:
    """The expansion rates and granularities to choose from, and the active rate K of all of them.

    granularities are those of a law with a term for G; another law keeps the granularity of the runs it was fitted to.
    expansion_rates: None is the rate at which the law was fitted, or SPARSITIES for a law with a term for S."""

    granularities: Sequence[float] = GRANULARITIES
    expansion_rates: Sequence[float] | None = None
    active_rate: float = 1

    def experts(self, law: Law) -> Experts:
        """Every combination under a law. Raises UserError for E < K, and where the law holds for an unknown E."""
        pairs = itertools.product(self._expansion_rates(law), self._granularities(law))
        E, G = np.array(list(pairs), float).T
        return Experts(E, np.full_like(E, self.active_rate), G)

    def _granularities(self, law: Law) -> Sequence[float]:
        if "G" in law.form.symbols or "top_k" in law.form.columns.values():  # top_k = K·G
            return self.granularities
        return (_constant(law, "granularity", 1),)

    def _expansion_rates(self, law: Law) -> Sequence[float]:
        if self.expansion_rates is not None:
            if (least := min(self.expansion_rates)) < self.active_rate:
                raise errors.UserError(f"an expansion rate of {least:g} is below K = {self.active_rate:g}")
            return self.expansion_rates
        if "S" in law.form.symbols:
            return tuple(self.active_rate / (1 - S) for S in SPARSITIES)
        if "expansion_rate" in law.data.constants:
            return (_constant(law, "expansion_rate"),)
        if "E" in law.form.symbols or {"n_total", "n_active"} <= set(law.form.columns.values()):
            return (1, 2, 4, 8, 16, 32)
        if "G" in law.form.symbols:
            raise errors.UserError(
                f"{law.name} does not say at which expansion rate it holds; --expansion_rate (expansion_rates) names it"
            )
        return (1,)


def _constant(law: Law, column: str, default: float = 1) -> float:
    """The value that a column had in all rows of the fit. Raises UserError where that is no number above 0."""
    value = number(law.data.constants.get(column, default))
    if value is None or value <= 0:
        raise errors.UserError(f"{law.name} was fitted where {column} is {law.data.constants[column]!r:.40}; fit again")
    return float(value)


DENSE = Choices(granularities=(1,), expansion_rates=(1,))
