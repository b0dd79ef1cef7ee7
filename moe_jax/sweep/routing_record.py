"""routing.json: which experts the tokens of held-out windows choose in a run's checkpoint, and in its first parameters.

Made after the run, as often as one likes; it enters neither the config hash nor the result.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from moe_jax import records
from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerRouting:
    """The choices in one layer. Experts are numbered from 0; n_experts entries of `load` and `top_tokens`."""

    load: tuple[int, ...]  # tokens of each expert, before any is dropped
    entropy: float  # of the router's distribution over experts, nats, mean over tokens
    experts_per_token: tuple[float, float, float]  # percentiles 5, 50, 95
    tokens_without_expert: float  # share of the tokens
    dropped_fraction: float | None  # of the assignments, at the capacity of training; None: training drops none
    # Pairs of experts that share more tokens than chance, most surprising first: (a, b, tokens, tokens by chance).
    pairs: tuple[tuple[int, int, int, float], ...]
    together: tuple[tuple[int, ...], ...] | None  # tokens of each pair of experts; None: too many experts
    # The tokens of each expert by their share of its load: (text, share, share over the token's share of the text).
    top_tokens: dict[str, tuple[tuple[str, float, float], ...]]

    @property
    def mean_load(self) -> float:
        return sum(self.load) / len(self.load)

    @property
    def max_over_mean(self) -> float:
        """The largest load over the mean: 1 when balanced. 0 where nothing was chosen."""
        return max(self.load) / (self.mean_load or 1)

    def load_percentile(self, q: int) -> int:
        """The load that q% of the experts do not exceed: one of the loads, no mean of two."""
        return sorted(self.load)[max(0, math.ceil(q / 100 * len(self.load)) - 1)]

    @property
    def max_violation(self) -> float:
        """The largest load over the mean, minus 1: 0 when balanced (Wang et al. 2024)."""
        return self.max_over_mean - 1

    @property
    def unused(self) -> int:
        """Experts that no token chose."""
        return self.load.count(0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoutingRecord:
    """The routing of one run on `sequences` held-out windows of a store."""

    name: str  # of the run
    step: int  # of the checkpoint
    router: str
    top_k: int  # experts of a token; with expert choice, in the mean
    capacity: int | None  # slots of an expert for one routing group in training; None: dropless
    store: dict[str, str]  # path and sha256
    sequences: int
    tokens: int  # of the windows
    initial: tuple[LayerRouting, ...]  # with the run's parameters before its first step
    trained: tuple[LayerRouting, ...]

    @property
    def n_experts(self) -> int:
        return len(self.trained[0].load)

    @property
    def experts_choose(self) -> bool:
        """Whether experts choose tokens, so that all have the same load."""
        return self.router == "expert_choice"

    def to_json(self) -> dict[str, Any]:
        """The object of the file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], name: str) -> "RoutingRecord":
        """The record of the run `name`. Raises UserError, which says what is wrong, where it is not one."""
        if values.get("name") != name:
            raise UserError(f"its name is {values.get('name')!r:.40}")
        layers = {when: _layers(values.get(when)) for when in ("initial", "trained")}
        if len(layers["initial"]) != len(layers["trained"]):
            raise UserError("it has not the same layers before training and after")
        return records.read(cls, values, **layers)


def _layers(values: Any) -> tuple[LayerRouting, ...]:
    if not isinstance(values, list) or not values or not all(isinstance(layer, Mapping) for layer in values):
        raise UserError(f"its layers are {values!r:.40}")
    layers = tuple(records.read(LayerRouting, layer) for layer in values)
    if len({len(layer.load) for layer in layers}) != 1 or not layers[0].load:
        raise UserError("its layers have not the same experts")
    return layers
