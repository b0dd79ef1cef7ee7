"""Slots of experts, filled from the choices of tokens.

R  routing groups        E  experts                         C  slots of an expert for one group: its capacity
T  tokens of a group     K  experts that a token chooses    A  assignments of a group, T·K, token by token
"""

import jax
import jax.numpy as jnp

from moe_jax.model.gathers import spread
from moe_jax.model.remat import saved
from moe_jax.model.routers.protocol import Choice, Slots, Statistics


def fill_slots(
    choice: Choice, statistics: Statistics, capacity: int, prioritised: bool = False
) -> tuple[Slots, Statistics]:
    """An expert keeps the first `capacity` assignments that ask, token-major; the rest are dropped.

    `prioritised`: the tokens with the largest weight ask first (Riquelme et al. 2021, batch-prioritised routing), so
    what is dropped depends on later tokens too: not causal."""
    R, T, K = choice.expert_RxTxK.shape
    E = statistics.load_RxE.shape[-1]
    expert_RxTxK = choice.expert_RxTxK
    if prioritised:
        token_RxT = jnp.argsort(-choice.weight_RxTxK.max(-1), axis=-1, stable=True)  # in the order of asking
        rank_RxT = jnp.argsort(token_RxT, axis=-1)
        expert_RxTxK = jnp.take_along_axis(expert_RxTxK, token_RxT[..., None], axis=1)
    assignment_RxExC, slot_RxA = jax.vmap(lambda expert_A, load_E: _fill(expert_A, load_E, capacity))(
        expert_RxTxK.reshape(R, T * K), statistics.load_RxE
    )
    assignment_RxExC, slot_RxTxK = saved((assignment_RxExC, slot_RxA.reshape(R, T, K)))
    if prioritised:
        assignment_RxExC = jax.vmap(
            lambda token_T, a_ExC: jnp.where(
                a_ExC < T * K, token_T[jnp.minimum(a_ExC // K, T - 1)] * K + a_ExC % K, a_ExC
            )
        )(token_RxT, assignment_RxExC)
        slot_RxTxK = jnp.take_along_axis(slot_RxTxK, rank_RxT[..., None], axis=1)
    weight_RxEC = jax.vmap(spread)(
        choice.weight_RxTxK.reshape(R, T * K, 1),
        assignment_RxExC.reshape(R, E * capacity),
        slot_RxTxK.reshape(R, T * K, 1),
    )
    slots = Slots(
        token_RxExC=assignment_RxExC // K,  # T where empty: an empty slot's assignment is A
        weight_RxExC=weight_RxEC.reshape(R, E, capacity),
        slot_RxTxK=slot_RxTxK,
    )
    return slots, statistics.replace(dropped_R=jnp.maximum(statistics.load_RxE - capacity, 0).sum(-1))


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


def pairs_of(routed: Choice | Slots, T: int, E: int) -> jax.Array:
    """pair_RxTxE, bool: whether the token and the expert go together, by a Choice before any is dropped."""
    if isinstance(routed, Choice):
        R = len(routed.expert_RxTxK)
        g, t = jnp.arange(R)[:, None, None], jnp.arange(T)[None, :, None]
        return jnp.zeros((R, T, E), bool).at[g, t, routed.expert_RxTxK].set(True)
    R = len(routed.token_RxExC)
    g, e = jnp.arange(R)[:, None, None], jnp.arange(E)[None, :, None]
    return jnp.zeros((R, T, E), bool).at[g, routed.token_RxExC, e].set(True, mode="drop")


def combine_weights(slots: Slots, T: int) -> jax.Array:
    """weight_RxTxE, what each expert's output counts for each token: the routing as the dense oracle needs it."""
    R, E, _ = slots.token_RxExC.shape
    g, e = jnp.arange(R)[:, None, None], jnp.arange(E)[None, :, None]
    weights = jnp.zeros((R, T, E), slots.weight_RxExC.dtype)
    return weights.at[g, slots.token_RxExC, e].add(slots.weight_RxExC, mode="drop")
