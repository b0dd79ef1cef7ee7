"""The law of abnar2025 for models that spend a whole budget, D = C / 6 N_a, under two ties of N_a to (N, S)."""

from collections.abc import Callable

import numpy as np

from moe_jax.laws import Law

AT = 1e20  # FLOPs: the budget of figures 1 and 2
SPARSITIES = 1 - np.logspace(0, -2.3, 400)  # 0 … .995, among which an optimum is looked for
_SIZES = np.geomspace(5e7, 1e12, 3001)

Tie = Callable[[np.ndarray, np.ndarray], np.ndarray]
TIES: dict[str, Tie] = {  # active parameters of (N, S)
    "N_a = N(1 − S)": lambda N, S: N * (1 - S),
    "N_a = N(¼ + ¾(1 − S))": lambda N, S: N * (0.25 + 0.75 * (1 - S)),
}
PLAIN, SHARED = TIES


def loss_at_budget(law: Law, flops: float, N, S, tie: str = PLAIN) -> np.ndarray:
    """The law's loss, nats per token, of a model of size N and sparsity S that spends `flops`: D = C / 6 N_a."""
    N, S = np.broadcast_arrays(np.asarray(N, float), np.asarray(S, float))
    return law.loss_at({"N": N, "S": S, "D": flops / (6 * TIES[tie](N, S))})


def slice_minima(law: Law, flops: float, tie: str) -> tuple[np.ndarray, np.ndarray]:
    """(N*, loss*) at each of SPARSITIES, N free; both (sparsities,)."""
    losses = loss_at_budget(law, flops, _SIZES[:, None], SPARSITIES, tie)
    best = losses.argmin(0)
    return _SIZES[best], losses.min(0)
