"""Routers: logits of one routing group in, who goes where out. Pure, at least float32, no mesh.

G  routing groups              E  experts
T  tokens of a group           K  experts a token chooses (token choice)
A  assignments of a group, T·K, token-major
C  slots of an expert for one group: its capacity
"""

import jax
import jax.numpy as jnp
from flax import struct

from moe_jax.config import MoeConfig


@struct.dataclass
class Routing:
    """Which token sits in which slot, and with what weight it comes back.

    Token choice knows both directions, slot -> token and assignment -> slot, so that both passes of dispatch and
    combine
    can gather. With expert choice a token may be in any number of slots; there the second direction is None.
    """

    token_GxExC: jax.Array  # the token in a slot; T: the slot is empty
    weight_GxExC: jax.Array  # of expert choice; 0 in empty slots
    slot_GxTxK: jax.Array | None  # e·C + c; E·C: dropped
    weight_GxTxK: jax.Array | None
    load_GxE: jax.Array  # assignments an expert was asked to take, dropped ones included
    dropped_G: jax.Array  # assignments that found no slot
    balance_G: jax.Array  # load-balancing loss, 1 when balanced
    z_G: jax.Array  # mean squared logsumexp
    entropy_G: jax.Array  # of the router's distribution, mean over tokens, nats

    @property
    def capacity(self) -> int:
        return self.token_GxExC.shape[-1]


def route(config: MoeConfig, logits_GxTxE: jax.Array, capacity: int) -> Routing:
    """The config's router on every group."""
    if config.router == "expert_choice":
        return expert_choice(logits_GxTxE, capacity, config.softmax)
    return token_choice(logits_GxTxE, config.top_k, capacity, config.softmax)


def token_choice(logits_GxTxE: jax.Array, k: int, capacity: int, softmax: str) -> Routing:
    """Each token takes its k best experts; an expert takes the first `capacity` that ask, token-major.

    `softmax` is before_top_k (weights are shares of all experts, not renormalised) or after_top_k (shares of the
    chosen).
    Ties go to the lower expert. The load-balancing loss is Switch's E Σ_e f_e P_e with f_e the share of assignments
    (Fedus et al. 2021, eq. 4, over k): 1 when balanced, E when all go to one expert."""
    _, T, E = logits_GxTxE.shape
    p_GxTxE = jax.nn.softmax(logits_GxTxE, axis=-1)
    if softmax == "before_top_k":
        weight_GxTxK, expert_GxTxK = jax.lax.top_k(p_GxTxE, k)
    else:
        chosen_GxTxK, expert_GxTxK = jax.lax.top_k(logits_GxTxE, k)
        weight_GxTxK = jax.nn.softmax(chosen_GxTxK, axis=-1)
    load_GxE, token_GxExC, slot_GxTxK = jax.vmap(lambda e: _fill_slots(e, E, capacity))(expert_GxTxK)
    kept_GxTxK = slot_GxTxK < E * capacity
    share_GxE = load_GxE.astype(p_GxTxE.dtype) / (T * k)
    return Routing(
        token_GxExC=token_GxExC,
        weight_GxExC=jnp.zeros(token_GxExC.shape, p_GxTxE.dtype),
        slot_GxTxK=slot_GxTxK,
        weight_GxTxK=jnp.where(kept_GxTxK, weight_GxTxK, 0),
        load_GxE=load_GxE,
        dropped_G=jnp.sum(~kept_GxTxK, axis=(1, 2)),
        balance_G=E * jnp.sum(share_GxE * p_GxTxE.mean(1), axis=-1),
        **_statistics(logits_GxTxE),
    )


def _fill_slots(expert_TxK: jax.Array, E: int, C: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(load_E, token_ExC, slot_TxK) of one group: a stable sort by expert keeps the token-major order in each."""
    T, K = expert_TxK.shape
    expert_A = expert_TxK.reshape(T * K)
    order_A = jnp.argsort(expert_A, stable=True)
    sorted_A = expert_A[order_A]
    first_E = jnp.searchsorted(sorted_A, jnp.arange(E, dtype=sorted_A.dtype))
    load_E = jnp.diff(first_E, append=T * K)
    place_ExC = first_E[:, None] + jnp.arange(C)[None, :]
    filled_ExC = jnp.arange(C)[None, :] < load_E[:, None]
    token_ExC = jnp.where(filled_ExC, order_A[jnp.minimum(place_ExC, T * K - 1)] // K, T)
    rank_A = jnp.arange(T * K) - first_E[sorted_A]
    slot_sorted_A = jnp.where(rank_A < C, sorted_A * C + rank_A, E * C)
    slot_A = jnp.zeros_like(slot_sorted_A).at[order_A].set(slot_sorted_A, unique_indices=True)
    return load_E, token_ExC, slot_A.reshape(T, K)


def expert_choice(logits_GxTxE: jax.Array, capacity: int, softmax: str) -> Routing:
    """Each expert takes its `capacity` best tokens of the group (Zhou et al. 2022; krajewski2024 softmaxes over
    experts).

    Weights are the router's values, not renormalised. Ties go to the lower token."""
    E = logits_GxTxE.shape[-1]
    p_GxTxE = jax.nn.softmax(logits_GxTxE, axis=-1 if softmax == "over_experts" else 1)
    weight_GxExC, token_GxExC = jax.lax.top_k(p_GxTxE.swapaxes(1, 2), capacity)
    G = logits_GxTxE.shape[0]
    # As many as capacity by construction, but varying over the mesh like everything else here.
    load_GxE = jnp.sum(jnp.ones_like(token_GxExC), axis=-1)
    nothing_G = jnp.zeros_like(logits_GxTxE[:, 0, 0])
    return Routing(
        token_GxExC=token_GxExC,
        weight_GxExC=weight_GxExC,
        slot_GxTxK=None,
        weight_GxTxK=None,
        load_GxE=load_GxE.reshape(G, E),
        dropped_G=nothing_G.astype(load_GxE.dtype),
        balance_G=nothing_G + 1,
        **_statistics(logits_GxTxE),
    )


def _statistics(logits_GxTxE: jax.Array) -> dict[str, jax.Array]:
    logp_GxTxE = jax.nn.log_softmax(logits_GxTxE, axis=-1)
    return {
        "z_G": jnp.square(jax.nn.logsumexp(logits_GxTxE, axis=-1)).mean(-1),
        "entropy_G": -jnp.sum(jnp.exp(logp_GxTxE) * logp_GxTxE, axis=-1).mean(-1),
    }


def combine_weights(routing: Routing, T: int) -> jax.Array:
    """weight_GxTxE, what each expert's output counts for each token: the routing as the dense oracle needs it."""
    G, E, C = routing.token_GxExC.shape
    g, e = jnp.arange(G)[:, None, None], jnp.arange(E)[None, :, None]
    if routing.slot_GxTxK is None:
        weights = jnp.zeros((G, T, E), routing.weight_GxExC.dtype)
        return weights.at[g, routing.token_GxExC, e].add(routing.weight_GxExC)
    t = jnp.arange(T)[None, :, None]
    weights = jnp.zeros((G, T, E + 1), routing.weight_GxTxK.dtype)  # the last column takes what is dropped
    return weights.at[g, t, routing.slot_GxTxK // C].add(routing.weight_GxTxK)[..., :E]
