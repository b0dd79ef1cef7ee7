"""From a size to everything that a law or a cost formula asks of a model, before any config exists.

A shape is a family of models that differ in width d alone: n_blocks = d / aspect (krajewski2024 plans with 64), taken
as a real number, so that an optimum can be found by a smooth search. Counts as in moe_jax.counts, without norms and
positions."""

from dataclasses import dataclass

import numpy as np

from moe_jax import errors

COSTS = ("flops_krajewski2024", "flops_abnar2025", "flops_6nd", "train_flops")


@dataclass(frozen=True)
class Shape:
    """The family: what a model of width d looks like. Defaults are krajewski2024's."""

    aspect: float = 64  # d / n_blocks
    ff_matrices: int = 2  # 3 for gated feed-forwards
    ff_ratio: float = 4  # d_ff / d
    vocabulary_size: int = 50257
    sequence_length: int = 256

    def columns(self, d: np.ndarray, E: np.ndarray, K: np.ndarray, G: np.ndarray) -> dict[str, np.ndarray]:
        """Columns of results.csv for width d, expansion rate E, active rate K and granularity G; all broadcast.

        E = 1 is the dense model, without a router.
        """
        n = d / self.aspect
        ff = self.ff_matrices * self.ff_ratio * d**2
        router = np.where(E > 1, n * d * E * G, 0.0)
        rest = router + 2 * d * self.vocabulary_size
        total, active = n * (4 * d**2 + ff * E), n * (4 * d**2 + ff * K)
        return {
            "d_model": d,
            "n_blocks": n,
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
        }

    def flops_per_token(self, cost: str, c: dict[str, np.ndarray]) -> np.ndarray:
        """FLOPs of one token, forward and backward, by a cost formula; c: what `columns` gave."""
        matrices, unembedding = 6 * c["n_active_nonemb"], 6 * c["d_model"] * self.vocabulary_size
        scores = 12 * c["n_blocks"] * c["d_model"] * self.sequence_length
        match cost:
            case "flops_krajewski2024":  # (12 d² c_f + d E G c_r) n_blocks with c_f = 6, c_r = 14
                return matrices + 14 * c["n_router"]
            case "flops_abnar2025":
                return matrices + 14 * c["n_router"] + scores + unembedding
            case "flops_6nd":
                return 6 * c["n_active"]
            case "train_flops":  # what a step has to do: a router costs its matrix, dispatch nothing
                return matrices + 6 * c["n_router"] + scores + unembedding
        raise errors.UserError(f"there is no cost formula {cost!r}; there are {', '.join(COSTS)}")
