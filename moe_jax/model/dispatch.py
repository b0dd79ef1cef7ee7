"""Tokens to experts and back, on one device's share of the mesh (called inside shard_map).

`slots` gathers each expert's tokens into its slots, sends slots to the devices that hold the experts, multiplies, sends
back, and adds up. `dropless` gathers the tokens of the expert row on each of its devices, which takes those that chose
its experts, sorted by expert in blocks, however many they are; on TPU the same in three steps, around the kernels of
model/grouped.py. `dense` runs every expert on every token: the oracle of
the tests.

    G  routing groups on this device    E  experts             R  slots of all experts and groups, E·G·C
    T  tokens of a group                C  slots of an expert  d  d_model
    N  tokens on this device, G·T       K  experts a token     S  rows of an expert: G·C, more after an exchange; of a
    A  assignments, N·K                 B  blocks                 block
"""

import jax
import jax.numpy as jnp

from moe_jax.model import routing
from moe_jax.model.experts import Experts
from moe_jax.model.gathers import collect, spread, take, wide
from moe_jax.model.remat import keep
from moe_jax.model.routing import Choice, Slots
from moe_jax.model.streaming import ACCELERATOR_CHUNK_ROWS, CHUNK_ROWS, streamed, streamed_blocks
from moe_jax.sharding import EXPERT


def slots(x_GxTxd: jax.Array, slots: Slots, experts: Experts, expert_parallel: int, stream: bool) -> jax.Array:
    """y_GxTxd: the weighted sum of each token's experts, those that had a slot for it.

    `experts` are those that this device holds. With `stream` and all experts here, rows are never all there at once."""
    G, T, d = x_GxTxd.shape
    _, E, C = slots.token_GxExC.shape
    first_G = T * jnp.arange(G, dtype=jnp.int32)
    token_ExGxC = slots.token_GxExC.swapaxes(0, 1)
    token_ExS = jnp.where(token_ExGxC == T, G * T, token_ExGxC + first_G[None, :, None]).reshape(E, G * C)
    weight_ExS = slots.weight_GxExC.swapaxes(0, 1).reshape(E, G * C)
    x_Nxd = x_GxTxd.reshape(G * T, d)
    if stream and expert_parallel == 1:
        y_Nxd = streamed(x_Nxd, token_ExS, weight_ExS, experts)
    else:
        y_Nxd = _exchanged(x_Nxd, token_ExS, weight_ExS, _rows_of_tokens(slots), experts, expert_parallel)
    return y_Nxd.reshape(G, T, d).astype(x_GxTxd.dtype)


def dropless(x_GxTxd: jax.Array, choice: Choice, experts: Experts, expert_parallel: int, on_cpu: bool) -> jax.Array:
    """y_GxTxd: the weighted sum of all experts that each token chose. `experts` are those that this device holds."""
    G, T, d = x_GxTxd.shape
    n_local = len(experts.w_out_Exfxd)
    x_Nxd, expert_NxK, weight_NxK = _of_the_row(x_GxTxd, choice, n_local, expert_parallel)
    A, K = expert_NxK.size, expert_NxK.shape[1]
    rows = block_rows(A, n_local * expert_parallel, on_cpu)
    assignment_BxS, expert_B, used = _blocks(expert_NxK.reshape(A), n_local, rows)
    weight_BxS = take(weight_NxK.reshape(A), assignment_BxS)
    chunk_rows = CHUNK_ROWS if on_cpu else ACCELERATOR_CHUNK_ROWS
    y_Nxd = streamed_blocks(chunk_rows, x_Nxd, assignment_BxS // K, weight_BxS, experts, expert_B, used)
    return _back_to_the_row(y_Nxd, expert_parallel).reshape(G, T, d).astype(x_GxTxd.dtype)


def sorted_rows(
    x_GxTxd: jax.Array, choice: Choice, n_local: int, expert_parallel: int, tile: int
) -> tuple[jax.Array, jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """(rows_Rxd, weight_R, load_E, the map that `combined_rows` takes): the rows of this device's experts, expert by
    expert, then zeros. R is a multiple of `tile` with room for any routing: all of the expert row's assignments."""
    x_Nxd, expert_NxK, weight_NxK = _of_the_row(x_GxTxd, choice, n_local, expert_parallel)
    (N, K), A = expert_NxK.shape, expert_NxK.size
    expert_A = expert_NxK.reshape(A)
    _, order_A = routing.sort_by_expert(expert_A, n_local + 1)
    load_E = jnp.zeros(n_local, jnp.int32).at[expert_A].add(1, mode="drop")
    R = -(-A // tile) * tile
    assignment_R = jnp.where(jnp.arange(R) < load_E.sum(), jnp.pad(order_A, (0, R - A)), A)
    place_A = jnp.zeros_like(order_A).at[order_A].set(jnp.arange(A, dtype=jnp.int32), unique_indices=True)
    place_A = jnp.where(expert_A < n_local, place_A, R)
    token_R, place_NxK = assignment_R // K, place_A.reshape(N, K)  # N where empty: an empty row's assignment is A
    weight_Rx1 = spread(weight_NxK.reshape(A, 1), assignment_R, place_A[:, None])
    return spread(x_Nxd, token_R, place_NxK), weight_Rx1[:, 0], load_E, (token_R, place_NxK)


def combined_rows(
    out_Rxd: jax.Array, maps: tuple[jax.Array, jax.Array], shape: tuple[int, int, int], expert_parallel: int
) -> jax.Array:
    """y_GxTxd of `shape`: the sum of each token's rows, over all devices of the expert row."""
    y_Nxd = collect(out_Rxd.astype(wide(out_Rxd)) if expert_parallel > 1 else out_Rxd, *maps)
    return _back_to_the_row(y_Nxd, expert_parallel).reshape(shape).astype(out_Rxd.dtype)


def _of_the_row(x_GxTxd, choice, n_local, expert_parallel):
    """(x_Nxd, expert_NxK, weight_NxK) of all tokens of the expert row; experts are numbered from this device's first,
    and those of others are n_local."""
    G, T, d = x_GxTxd.shape
    x_Nxd = x_GxTxd.reshape(G * T, d)
    expert_NxK, weight_NxK = (a.reshape(G * T, -1) for a in (choice.expert_GxTxK, choice.weight_GxTxK))
    if expert_parallel > 1:
        given = (x_Nxd, expert_NxK, weight_NxK)
        x_Nxd, expert_NxK, weight_NxK = keep([jax.lax.all_gather(a, EXPERT, tiled=True) for a in given])
        expert_NxK = expert_NxK - n_local * jax.lax.axis_index(EXPERT)
        expert_NxK = jnp.where((expert_NxK >= 0) & (expert_NxK < n_local), expert_NxK, n_local)  # others' come last
    return x_Nxd, expert_NxK, weight_NxK


def _back_to_the_row(y_Nxd: jax.Array, expert_parallel: int) -> jax.Array:
    """This device's tokens of the expert row, added up over its devices."""
    return jax.lax.psum_scatter(y_Nxd, EXPERT, tiled=True) if expert_parallel > 1 else y_Nxd


def block_rows(assignments: int, n_experts: int, on_cpu: bool) -> int:
    """S: as many as an expert gets on average, to a power of two from 8 to 256, on an accelerator to 512 (an H200 is a
    fifth faster with these). Smaller blocks read the experts' matrices more often, larger ones pad more."""
    return 2 ** min(max((assignments // n_experts).bit_length() - 1, 3), 8 if on_cpu else 9)


def _blocks(expert_A: jax.Array, E: int, S: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(assignment_BxS, A where empty; expert_B; how many blocks are used), each block of one expert's assignments in
    their order. Assignments of expert E are not ours. B = ceil(A / S) + E is enough for any routing."""
    A = len(expert_A)
    B = -(-A // S) + E
    _, order_A = routing.sort_by_expert(expert_A, E + 1)
    load_E = jnp.zeros(E, jnp.int32).at[expert_A].add(1, mode="drop")
    first_E = jnp.cumsum(load_E) - load_E
    end_block_E = jnp.cumsum(-(-load_E // S))
    expert_B = jnp.searchsorted(end_block_E, jnp.arange(B, dtype=jnp.int32), side="right").astype(jnp.int32)
    used_B = expert_B < E
    expert_B = jnp.where(used_B, expert_B, 0)
    block_of_expert_B = jnp.arange(B, dtype=jnp.int32) - (end_block_E - -(-load_E // S))[expert_B]
    rank_BxS = block_of_expert_B[:, None] * S + jnp.arange(S, dtype=jnp.int32)[None, :]
    filled_BxS = used_B[:, None] & (rank_BxS < load_E[expert_B][:, None])
    place_BxS = jnp.where(filled_BxS, first_E[expert_B][:, None] + rank_BxS, A)
    return jnp.where(filled_BxS, take(order_A, place_BxS), A), expert_B, end_block_E[-1]


def dense(x_GxTxd: jax.Array, slots: Slots, experts: Experts) -> jax.Array:
    """y_GxTxd as `slots` gives it, from every expert on every token; `experts` holds them all."""
    G, T, d = x_GxTxd.shape
    weight_GxTxE = routing.combine_weights(slots, T)
    E = weight_GxTxE.shape[-1]
    x_ExNxd = jnp.broadcast_to(x_GxTxd.reshape(1, G * T, d), (E, G * T, d))
    out_ExNxd = experts(x_ExNxd, jnp.ones((E, G * T), weight_GxTxE.dtype))
    out_ExGxTxd = out_ExNxd.reshape(E, G, T, d).astype(weight_GxTxE.dtype)
    return jnp.einsum("GTE,EGTd->GTd", weight_GxTxE, out_ExGxTxd).astype(x_GxTxd.dtype)


def _rows_of_tokens(slots: Slots) -> jax.Array | None:
    """row_NxK, where each of a token's assignments lies among all R rows, expert by expert and group by group; R:
    dropped. None with expert choice."""
    if slots.slot_GxTxK is None:
        return None
    G, E, C = slots.token_GxExC.shape
    e_GxTxK, c_GxTxK = jnp.divmod(slots.slot_GxTxK, C)
    g_Gx1x1 = jnp.arange(G, dtype=jnp.int32)[:, None, None]
    row_GxTxK = jnp.where(e_GxTxK < E, (e_GxTxK * G + g_Gx1x1) * C + c_GxTxK, E * G * C)
    return row_GxTxK.reshape(-1, row_GxTxK.shape[-1])


def _exchanged(x_Nxd, token_ExS, weight_ExS, row_NxK, experts, expert_parallel):
    """Rows go to the devices of their experts, through them, and back."""
    (E, S), d = token_ExS.shape, x_Nxd.shape[-1]
    token_R = token_ExS.reshape(E * S)
    rows_Rxd = take(x_Nxd, token_R) if row_NxK is None else spread(x_Nxd, token_R, row_NxK)
    rows_ExSxd = rows_Rxd.reshape(E, S, d)
    if expert_parallel == 1:
        out_ExSxd = experts(rows_ExSxd, weight_ExS)
    else:
        there = keep([jax.lax.all_to_all(a, EXPERT, 0, 1, tiled=True) for a in (rows_ExSxd, weight_ExS)])
        out_ExSxd = jax.lax.all_to_all(experts(*there), EXPERT, 1, 0, tiled=True)
    out_Rxd = out_ExSxd.reshape(E * S, d)
    if row_NxK is not None:
        return collect(out_Rxd, token_R, row_NxK)
    return jnp.zeros_like(x_Nxd, wide(out_Rxd)).at[token_R].add(out_Rxd.astype(wide(out_Rxd)), mode="drop")
