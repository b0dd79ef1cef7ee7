"""Token choice: each token takes its best experts (Shazeer et al. 2017).

R  routing groups    T  tokens of a group    E  experts    K  experts that a token chooses
M  groups of experts, E / M experts each
"""

import jax
import jax.numpy as jnp

from moe_jax.config.moe import MoeConfig
from moe_jax.model.remat import saved
from moe_jax.model.routers.protocol import Choice, Statistics
from moe_jax.model.routers.statistics import sigmoid_moments, softmax_moments, token_statistics


def token_choice(
    logits_RxTxE: jax.Array, moe: MoeConfig, capacity: int, bias_E: jax.Array | None = None
) -> tuple[Choice, Statistics]:
    """Each token takes its moe.top_k best experts, whatever the capacity. Ties go to the lower expert.

    moe.softmax: before_top_k (weights are shares of all experts) or after_top_k (shares of the chosen). moe.score
    `sigmoid` scores each expert by itself. With moe.renormalise the weights of a token are divided by their sum.
    bias_E is for the choice alone: it is added to the logits, or to sigmoid scores (DeepSeek-V3, 2412.19437, eq.
    16)."""
    sigmoid = moe.score == "sigmoid"
    expert_RxTxK = saved(jax.lax.top_k(_wish(jax.lax.stop_gradient(logits_RxTxE), moe, bias_E), moe.top_k)[1])
    logit_RxTxK = jnp.take_along_axis(logits_RxTxE, expert_RxTxK, axis=-1, mode="promise_in_bounds")
    moments = sigmoid_moments(logits_RxTxE) if sigmoid else softmax_moments(logits_RxTxE)
    log_score_RxTxK = jax.nn.log_sigmoid(logit_RxTxK) if sigmoid else logit_RxTxK
    if moe.renormalise or moe.softmax == "after_top_k":  # by logarithms: no sum is 0, however small the scores are
        log_score_RxTxK = log_score_RxTxK - jax.nn.logsumexp(log_score_RxTxK, axis=-1)[..., None]
    elif not sigmoid:
        log_score_RxTxK = log_score_RxTxK - moments.logsumexp_RxT[..., None]
    weight_RxTxK = jnp.exp(log_score_RxTxK)
    if moe.routed_scale != 1:
        weight_RxTxK = moe.routed_scale * weight_RxTxK
    return Choice(expert_RxTxK, weight_RxTxK), token_statistics(logits_RxTxE, expert_RxTxK, moments)


def _wish(logits_RxTxE: jax.Array, moe: MoeConfig, bias_E: jax.Array | None) -> jax.Array:
    """wish_RxTxE: a token takes the experts with the largest; -inf outside its groups of experts."""
    wish_RxTxE = jax.nn.sigmoid(logits_RxTxE) if moe.score == "sigmoid" else logits_RxTxE
    if bias_E is not None:
        wish_RxTxE = wish_RxTxE + bias_E[None, None]
    if moe.expert_groups == 1:
        return wish_RxTxE
    # A sum of logits is none of scores: softmax's shares are summed, whose order within a token is that of its logits.
    score_RxTxE = wish_RxTxE if moe.score == "sigmoid" else jax.nn.softmax(wish_RxTxE, axis=-1)
    return jnp.where(_in_chosen_groups(score_RxTxE, moe), wish_RxTxE, -jnp.inf)


def _in_chosen_groups(score_RxTxE: jax.Array, moe: MoeConfig) -> jax.Array:
    """Whether an expert is in one of the token's moe.chosen_groups best groups. A group's score is the sum of its two
    best experts' (DeepSeek-V3's node-limited routing, 2412.19437, §2.1.2); ties go to the lower group."""
    R, T, E = score_RxTxE.shape
    M = moe.expert_groups
    best_RxTxMx2 = jax.lax.top_k(score_RxTxE.reshape(R, T, M, E // M), 2)[0]
    group_RxTxm = jax.lax.top_k(best_RxTxMx2.sum(-1), moe.chosen_groups)[1]
    chosen_RxTxM = (group_RxTxm[..., None] == jnp.arange(M, dtype=group_RxTxm.dtype)[None, None, None]).any(-2)
    return jnp.repeat(chosen_RxTxM, E // M, axis=-1)
