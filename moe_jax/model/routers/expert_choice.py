"""Expert choice: each expert takes its best tokens (Zhou et al. 2022)."""

import jax
import jax.numpy as jnp

from moe_jax.config.moe import MoeConfig
from moe_jax.model.remat import saved
from moe_jax.model.routers.protocol import Slots, Statistics
from moe_jax.model.routers.statistics import softmax_moments


def expert_choice(
    logits_RxTxE: jax.Array, moe: MoeConfig, capacity: int, bias_E: jax.Array | None = None
) -> tuple[Slots, Statistics]:
    """Each expert takes its `capacity` best tokens of the group. Ties go to the lower token. There is no bias.

    moe.softmax: over_experts (as krajewski2024) or over_tokens. Weights are its values, not renormalised."""
    p_RxTxE = jax.nn.softmax(logits_RxTxE, axis=-1 if moe.softmax == "over_experts" else 1)
    p_RxExT = p_RxTxE.swapaxes(1, 2)
    token_RxExC = saved(jax.lax.top_k(jax.lax.stop_gradient(p_RxExT), capacity)[1])
    weight_RxExC = jnp.take_along_axis(p_RxExT, token_RxExC, axis=-1, mode="promise_in_bounds")
    softmax = softmax_moments(logits_RxTxE)
    # As many as capacity by construction, but varying over the mesh like everything else here.
    load_RxE = jnp.sum(jnp.ones_like(token_RxExC), axis=-1)
    statistics = Statistics(
        load_RxE=load_RxE,
        dropped_R=jnp.zeros_like(load_RxE[:, 0]),
        balance_R=jnp.ones_like(softmax.entropy_R),
        z_R=jnp.square(softmax.logsumexp_RxT).mean(-1),
        entropy_R=softmax.entropy_R,
    )
    return Slots(token_RxExC, weight_RxExC, None), statistics
