"""Routers: logits of one routing group in, who goes where out. Pure, at least float32, no mesh.

G  routing groups              E  experts
T  tokens of a group           K  experts a token chooses (token choice)
A  assignments of a group, T·K, token-major
C  slots of an expert for one group: its capacity
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from moe_jax.config import MoeConfig
from moe_jax.model.gathers import spread
from moe_jax.model.remat import keep


@struct.dataclass
class Statistics:
    """What a router says of itself, group by group."""

    load_GxE: jax.Array  # assignments an expert was asked to take, dropped ones included
    dropped_G: jax.Array  # assignments that found no slot
    balance_G: jax.Array  # load-balancing loss, 1 when balanced
    z_G: jax.Array  # mean squared logsumexp
    entropy_G: jax.Array  # of the router's distribution, mean over tokens, nats


@struct.dataclass
class Choice:
    """The experts that each token chose."""

    expert_GxTxK: jax.Array
    weight_GxTxK: jax.Array


@struct.dataclass
class Slots:
    """Which token sits in which slot of an expert, and with what weight it comes back.

    Token choice knows the way back too, so that both passes of dispatch and combine can gather. With expert choice a
    token may be in any number of slots; there it is None."""

    token_GxExC: jax.Array  # T: the slot is empty
    weight_GxExC: jax.Array  # 0 in empty slots
    slot_GxTxK: jax.Array | None  # e·C + c; E·C: dropped


def route(
    config: MoeConfig, logits_GxTxE: jax.Array, capacity: int, bias_E: jax.Array | None = None
) -> tuple[Slots, Statistics]:
    """The config's router on every group, into slots."""
    if config.router == "expert_choice":
        return expert_choice(logits_GxTxE, capacity, config.softmax)
    choice, statistics = token_choice(logits_GxTxE, config.top_k, config.softmax, bias_E)
    return fill_slots(choice, statistics, capacity, config.batch_prioritised)


def token_choice(
    logits_GxTxE: jax.Array, k: int, softmax: str, bias_E: jax.Array | None = None
) -> tuple[Choice, Statistics]:
    """Each token takes its k best experts; nothing is dropped yet.

    `softmax` is before_top_k (weights are shares of all experts, not renormalised) or after_top_k (shares of the
    chosen). `bias_E` is added to the logits for the choice alone. Ties go to the lower expert. The load-balancing loss
    is Switch's E Σ_e f_e P_e with f_e the share of assignments (Fedus et al. 2021, eq. 4, over k): 1 when balanced, E
    when all go to one expert."""
    G, T, E = logits_GxTxE.shape
    wish_GxTxE = jax.lax.stop_gradient(logits_GxTxE)
    wish_GxTxE = wish_GxTxE if bias_E is None else wish_GxTxE + bias_E[None, None]
    expert_GxTxK = keep(jax.lax.top_k(wish_GxTxE, k)[1])
    logit_GxTxK = jnp.take_along_axis(logits_GxTxE, expert_GxTxK, axis=-1, mode="promise_in_bounds")
    lse_GxT, share_GxE, entropy_G = _distribution(logits_GxTxE)
    whole_GxT = lse_GxT if softmax == "before_top_k" else jax.nn.logsumexp(logit_GxTxK, axis=-1)
    load_GxE = jnp.zeros((G, E), jnp.int32).at[jnp.arange(G)[:, None], expert_GxTxK.reshape(G, T * k)].add(1)
    asked_GxE = load_GxE.astype(logits_GxTxE.dtype) / (T * k)
    statistics = Statistics(
        load_GxE=load_GxE,
        dropped_G=jnp.zeros_like(load_GxE[:, 0]),
        balance_G=E * jnp.sum(asked_GxE * share_GxE, axis=-1),
        z_G=jnp.square(lse_GxT).mean(-1),
        entropy_G=entropy_G,
    )
    return Choice(expert_GxTxK, jnp.exp(logit_GxTxK - whole_GxT[..., None])), statistics


def fill_slots(
    choice: Choice, statistics: Statistics, capacity: int, prioritised: bool = False
) -> tuple[Slots, Statistics]:
    """An expert keeps the first `capacity` assignments that ask, token-major; the rest are dropped.

    `prioritised`: the tokens with the largest weight ask first (Riquelme et al. 2021, batch-prioritised routing), so
    what is dropped depends on later tokens too: not causal."""
    G, T, K = choice.expert_GxTxK.shape
    E = statistics.load_GxE.shape[-1]
    expert_GxTxK = choice.expert_GxTxK
    if prioritised:
        token_GxT = jnp.argsort(-choice.weight_GxTxK.max(-1), axis=-1, stable=True)  # in the order of asking
        rank_GxT = jnp.argsort(token_GxT, axis=-1)
        expert_GxTxK = jnp.take_along_axis(expert_GxTxK, token_GxT[..., None], axis=1)
    assignment_GxExC, slot_GxA = jax.vmap(lambda expert_A, load_E: _fill(expert_A, load_E, capacity))(
        expert_GxTxK.reshape(G, T * K), statistics.load_GxE
    )
    assignment_GxExC, slot_GxTxK = keep((assignment_GxExC, slot_GxA.reshape(G, T, K)))
    if prioritised:
        assignment_GxExC = jax.vmap(
            lambda token_T, a_ExC: jnp.where(
                a_ExC < T * K, token_T[jnp.minimum(a_ExC // K, T - 1)] * K + a_ExC % K, a_ExC
            )
        )(token_GxT, assignment_GxExC)
        slot_GxTxK = jnp.take_along_axis(slot_GxTxK, rank_GxT[..., None], axis=1)
    weight_GxR = jax.vmap(spread)(
        choice.weight_GxTxK.reshape(G, T * K, 1),
        assignment_GxExC.reshape(G, E * capacity),
        slot_GxTxK.reshape(G, T * K, 1),
    )
    slots = Slots(
        token_GxExC=assignment_GxExC // K,  # T where empty: an empty slot's assignment is A
        weight_GxExC=weight_GxR.reshape(G, E, capacity),
        slot_GxTxK=slot_GxTxK,
    )
    return slots, statistics.replace(dropped_G=jnp.maximum(statistics.load_GxE - capacity, 0).sum(-1))


def _fill(expert_A: jax.Array, load_E: jax.Array, C: int) -> tuple[jax.Array, jax.Array]:
    """(assignment_ExC, A where empty; slot_A, E·C where dropped) of one group."""
    A, E = len(expert_A), len(load_E)
    expert_sorted_A, order_A = sort_by_expert(expert_A, E)
    first_E = jnp.cumsum(load_E) - load_E
    rank_A = jnp.arange(A, dtype=jnp.int32) - first_E[expert_sorted_A]
    slot_sorted_A = jnp.where(rank_A < C, expert_sorted_A * C + rank_A, E * C)
    place_ExC = first_E[:, None] + jnp.arange(C, dtype=jnp.int32)[None, :]
    filled_ExC = jnp.arange(C)[None, :] < load_E[:, None]
    assignment_ExC = jnp.where(filled_ExC, order_A[jnp.minimum(place_ExC, A - 1)], A)
    return assignment_ExC, jnp.zeros_like(slot_sorted_A).at[order_A].set(slot_sorted_A, unique_indices=True)


def sort_by_expert(expert_A: jax.Array, E: int) -> tuple[jax.Array, jax.Array]:
    """(expert_A in ascending order, the assignment at each place), in the order of assignments within an expert.

    Both numbers are packed into one key, since sorting one array of unique keys is several times as fast as a stable
    sort with a second array to carry (XLA:CPU)."""
    A = len(expert_A)
    bits = max(A - 1, 1).bit_length()
    if (E - 1) >> (32 - bits):
        order_A = jnp.argsort(expert_A, stable=True)
        return expert_A[order_A], order_A
    key_A = expert_A.astype(jnp.uint32) << bits | jnp.arange(A, dtype=jnp.uint32)
    key_A = jax.lax.sort(key_A, is_stable=False)
    return (key_A >> bits).astype(jnp.int32), (key_A & (2**bits - 1)).astype(jnp.int32)


def expert_choice(logits_GxTxE: jax.Array, capacity: int, softmax: str) -> tuple[Slots, Statistics]:
    """Each expert takes its `capacity` best tokens of the group (Zhou et al. 2022; krajewski2024 softmaxes over
    experts).

    Weights are the router's values, not renormalised. Ties go to the lower token."""
    p_GxTxE = jax.nn.softmax(logits_GxTxE, axis=-1 if softmax == "over_experts" else 1)
    p_GxExT = p_GxTxE.swapaxes(1, 2)
    token_GxExC = keep(jax.lax.top_k(jax.lax.stop_gradient(p_GxExT), capacity)[1])
    weight_GxExC = jnp.take_along_axis(p_GxExT, token_GxExC, axis=-1, mode="promise_in_bounds")
    lse_GxT, _, entropy_G = _distribution(logits_GxTxE)
    # As many as capacity by construction, but varying over the mesh like everything else here.
    load_GxE = jnp.sum(jnp.ones_like(token_GxExC), axis=-1)
    statistics = Statistics(
        load_GxE=load_GxE,
        dropped_G=jnp.zeros_like(load_GxE[:, 0]),
        balance_G=jnp.ones_like(entropy_G),
        z_G=jnp.square(lse_GxT).mean(-1),
        entropy_G=entropy_G,
    )
    return Slots(token_GxExC, weight_GxExC, None), statistics


def _distribution(logits_GxTxE: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(lse_GxT, share_GxE, entropy_G): of the softmax over experts its logsumexp, its mean over tokens, its entropy.

    By products: XLA:CPU adds up exp() a number at a time where it fuses the two, forty times as slowly."""
    T = logits_GxTxE.shape[1]
    max_GxT = jax.lax.stop_gradient(logits_GxTxE.max(-1))
    exp_GxTxE = jnp.exp(logits_GxTxE - max_GxT[..., None])
    product = functools.partial(jnp.einsum, precision="highest")
    sum_GxT = product("GTE,E->GT", exp_GxTxE, jnp.ones_like(logits_GxTxE[0, 0]))
    lse_GxT = max_GxT + jnp.log(sum_GxT)
    share_GxE = product("GT,GTE->GE", 1 / (T * sum_GxT), exp_GxTxE)
    mean_logit_GxT = product("GTE,GTE->GT", exp_GxTxE, logits_GxTxE) / sum_GxT
    return lse_GxT, share_GxE, (lse_GxT - mean_logit_GxT).mean(-1)


def combine_weights(slots: Slots, T: int) -> jax.Array:
    """weight_GxTxE, what each expert's output counts for each token: the routing as the dense oracle needs it."""
    G, E, _ = slots.token_GxExC.shape
    g, e = jnp.arange(G)[:, None, None], jnp.arange(E)[None, :, None]
    weights = jnp.zeros((G, T, E), slots.weight_GxExC.dtype)
    return weights.at[g, slots.token_GxExC, e].add(slots.weight_GxExC, mode="drop")
