"""Families of models that differ in width alone: every column that a law or a FLOP formula needs, without a config.

n_layers = d / aspect (krajewski2024 plans with 64) is a real number here, so that an optimum can be found by a smooth
search. Counts as in config/counts.py, without norms and positions."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moe_jax import flops


@dataclass(frozen=True)
class Shape:
    """A family of models of any width d. The defaults are krajewski2024's."""

    aspect: float = 64  # d / n_layers
    ff_matrices: int = 2  # 3 for gated feed-forwards
    ff_ratio: float = 4  # d_ff / d
    vocab_size: int = 50257
    sequence_length: int = 256

    def columns(self, d: np.ndarray, E: np.ndarray, K: np.ndarray, G: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of results.csv for width d, expansion rate E, active rate K and granularity G, which broadcast.

        E = 1 is the dense model, without a router."""
        n = d / self.aspect
        ff = self.ff_matrices * self.ff_ratio * d**2
        router = np.where(E > 1, n * d * E * G, 0.0)
        rest = router + 2 * d * self.vocab_size
        total, active = n * (4 * d**2 + ff * E), n * (4 * d**2 + ff * K)
        return {
            "d_model": d,
            "n_layers": n,
            "n_total_nonemb": total,
            "n_active_nonemb": active,
            "n_total": total + rest,
            "n_active": active + rest,
            "n_router": router,
            "expansion_rate": E,
            "active_rate": K,
            "granularity": G,
            "sparsity": 1 - K / E,
            "n_experts": E * G,
            "top_k": K * G,
            "shared_share": np.zeros_like(d * K),  # these families share no expert
        }

    def of_size(self, column: str, size, E, K, G) -> dict[str, np.ndarray]:
        """The columns of the model with `size` parameters, counted as `column` (n_total, …); arrays broadcast."""
        size, E, K, G = (np.asarray(v, float) for v in np.broadcast_arrays(size, E, K, G))
        low, high = np.full(size.shape, np.log(0.1)), np.full(size.shape, np.log(1e8))
        for _ in range(60):  # every count grows with the width
            middle = (low + high) / 2
            small = self.columns(np.exp(middle), E, K, G)[column] < size
            low, high = np.where(small, middle, low), np.where(small, high, middle)
        return self.columns(np.exp((low + high) / 2), E, K, G)

    def flops_per_token(self, cost: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Training FLOPs of one token by a formula of moe_jax/flops.py; columns: the result of `columns`."""
        counts = {k: columns[k] for k in ("n_active_nonemb", "n_active", "n_router", "n_layers", "d_model")}
        model = flops.Model(
            **counts,
            attention_width=columns["d_model"],
            sequence_length=self.sequence_length,
            vocab_size=self.vocab_size,
        )
        return flops.FORMULAS[cost](model)
