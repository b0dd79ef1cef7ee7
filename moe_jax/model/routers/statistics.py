"""Statistics of routers: loads, and moments of the distribution over experts.

R  routing groups    T  tokens of a group    E  experts    K  experts that a token chooses
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from moe_jax.model.routers.protocol import Statistics


@struct.dataclass
class Moments:
    """Moments of a distribution over experts: the softmax of logits, or scores divided by their sum."""

    logsumexp_RxT: jax.Array  # of the logits
    share_RxE: jax.Array  # mean over tokens
    entropy_R: jax.Array  # mean over tokens, nats


def softmax_moments(logits_RxTxE: jax.Array) -> Moments:
    """The moments of logits_RxTxE.

    By products: XLA:CPU adds up exp() a number at a time where it fuses the two, forty times as slowly."""
    T = logits_RxTxE.shape[1]
    max_RxT = jax.lax.stop_gradient(logits_RxTxE.max(-1))
    exp_RxTxE = jnp.exp(logits_RxTxE - max_RxT[..., None])
    product = functools.partial(jnp.einsum, precision="highest")
    sum_RxT = product("RTE,E->RT", exp_RxTxE, jnp.ones_like(logits_RxTxE[0, 0]))
    logsumexp_RxT = max_RxT + jnp.log(sum_RxT)
    share_RxE = product("RT,RTE->RE", 1 / (T * sum_RxT), exp_RxTxE)
    mean_logit_RxT = product("RTE,RTE->RT", exp_RxTxE, logits_RxTxE) / sum_RxT
    return Moments(logsumexp_RxT, share_RxE, (logsumexp_RxT - mean_logit_RxT).mean(-1))


def sigmoid_moments(logits_RxTxE: jax.Array) -> Moments:
    """The moments of sigmoid scores that are divided by their sum over experts (DeepSeek-V3, 2412.19437, eq. 19)."""
    of_scores = softmax_moments(jax.nn.log_sigmoid(logits_RxTxE))
    return of_scores.replace(logsumexp_RxT=softmax_moments(logits_RxTxE).logsumexp_RxT)


def token_statistics(logits_RxTxE: jax.Array, expert_RxTxK: jax.Array, moments: Moments | None = None) -> Statistics:
    """Statistics where tokens chose expert_RxTxK; nothing is dropped yet. `moments`: those of the distribution over
    experts; None: of the softmax.

    The load-balancing loss is Switch's E Σ_e f_e P_e with f_e the share of assignments (Fedus et al. 2021, eq. 4, over
    k) and P_e the mean share of the distribution: 1 when balanced, E when all go to one expert."""
    moments = softmax_moments(logits_RxTxE) if moments is None else moments
    (R, T, K), E = expert_RxTxK.shape, logits_RxTxE.shape[-1]
    load_RxE = jnp.zeros((R, E), jnp.int32).at[jnp.arange(R)[:, None], expert_RxTxK.reshape(R, T * K)].add(1)
    asked_RxE = load_RxE.astype(logits_RxTxE.dtype) / (T * K)
    return Statistics(
        load_RxE=load_RxE,
        dropped_R=jnp.zeros_like(load_RxE[:, 0]),
        balance_R=E * jnp.sum(asked_RxE * moments.share_RxE, axis=-1),
        z_R=jnp.square(moments.logsumexp_RxT).mean(-1),
        entropy_R=moments.entropy_R,
    )
