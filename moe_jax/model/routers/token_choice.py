"""Token choice: each token takes its best experts (Shazeer et al. 2017)."""

import jax
import jax.numpy as jnp

from moe_jax.config.moe import MoeConfig
from moe_jax.model.remat import saved
from moe_jax.model.routers.protocol import Choice, Statistics
from moe_jax.model.routers.statistics import softmax_moments, token_statistics


def token_choice(
    logits_RxTxE: jax.Array, moe: MoeConfig, capacity: int, bias_E: jax.Array | None = None
) -> tuple[Choice, Statistics]:
    """Each token takes its moe.top_k best experts, whatever the capacity. Ties go to the lower expert.

    moe.softmax: before_top_k (weights are shares of all experts, not renormalised) or after_top_k (shares of the
    chosen). bias_E is added to the logits for the choice alone."""
    wish_RxTxE = jax.lax.stop_gradient(logits_RxTxE)
    wish_RxTxE = wish_RxTxE if bias_E is None else wish_RxTxE + bias_E[None, None]
    expert_RxTxK = saved(jax.lax.top_k(wish_RxTxE, moe.top_k)[1])
    logit_RxTxK = jnp.take_along_axis(logits_RxTxE, expert_RxTxK, axis=-1, mode="promise_in_bounds")
    softmax = softmax_moments(logits_RxTxE)
    before = moe.softmax == "before_top_k"
    logsumexp_RxT = softmax.logsumexp_RxT if before else jax.nn.logsumexp(logit_RxTxK, axis=-1)
    choice = Choice(expert_RxTxK, jnp.exp(logit_RxTxK - logsumexp_RxT[..., None]))
    return choice, token_statistics(logits_RxTxE, expert_RxTxK, softmax)
