"""Dispatch and combine: tokens to experts and back, on one device's share of the mesh (called inside shard_map).

slots     gathers each expert's tokens into its slots, sends slots to the devices that hold the experts, multiplies,
          sends back, and adds up
dropless  gathers the tokens of the expert row (the devices along the mesh axis `expert`) on each of its devices, which
          takes those that chose its experts, sorted by expert in blocks, however many they are; on TPU the same in
          three steps, around the kernels of model/megablox.py
dense     runs every expert on every token: the oracle of the tests

R  routing groups on this device    E       experts                        P  places: rows in the experts' order
T  tokens of a group                Elocal  experts that this device holds Q  rows of an expert or of a block
U  tokens in one list: R·T, or      K       experts of a token             J  blocks, each of one expert's rows
   all of the expert row            A       assignments, U·K, by token     C  slots of an expert for one group
d  d_model
"""

import jax
import jax.numpy as jnp

from moe_jax.model.chunked_experts import ACCELERATOR_CHUNK_ROWS, CHUNK_ROWS, streamed, streamed_blocks
from moe_jax.model.experts import Experts
from moe_jax.model.gathers import collect, spread, take
from moe_jax.model.precision import accumulation_dtype
from moe_jax.model.remat import saved
from moe_jax.model.routers.protocol import Choice, Slots
from moe_jax.model.routers.slots import combine_weights, sort_by_expert
from moe_jax.model.sharding import EXPERT


def slots(x_RxTxd: jax.Array, slots: Slots, experts: Experts, expert_parallel: int, stream: bool) -> jax.Array:
    """y_RxTxd: the weighted sum of each token's experts, those that had a slot for it.

    `experts` are those that this device holds. With `stream`, and all experts on this device, rows are processed in
    chunks."""
    R, T, d = x_RxTxd.shape
    _, E, C = slots.token_RxExC.shape
    first_R = T * jnp.arange(R, dtype=jnp.int32)
    token_ExRxC = slots.token_RxExC.swapaxes(0, 1)
    token_ExQ = jnp.where(token_ExRxC == T, R * T, token_ExRxC + first_R[None, :, None]).reshape(E, R * C)
    weight_ExQ = slots.weight_RxExC.swapaxes(0, 1).reshape(E, R * C)
    x_Uxd = x_RxTxd.reshape(R * T, d)
    if stream and expert_parallel == 1:
        y_Uxd = streamed(x_Uxd, token_ExQ, weight_ExQ, experts)
    else:
        y_Uxd = _exchanged(x_Uxd, token_ExQ, weight_ExQ, _rows_of_tokens(slots), experts, expert_parallel)
    return y_Uxd.reshape(R, T, d).astype(x_RxTxd.dtype)


def dropless(x_RxTxd: jax.Array, choice: Choice, experts: Experts, expert_parallel: int, on_cpu: bool) -> jax.Array:
    """y_RxTxd: the weighted sum of all experts that each token chose. `experts` are those that this device holds."""
    R, T, d = x_RxTxd.shape
    Elocal = len(experts.w_out_Exfxd)
    x_Uxd, expert_UxK, weight_UxK = _gathered_row(x_RxTxd, choice, Elocal, expert_parallel)
    A, K = expert_UxK.size, expert_UxK.shape[1]
    rows = block_rows(A, Elocal * expert_parallel, on_cpu)
    assignment_JxQ, expert_J, used = _blocks(expert_UxK.reshape(A), Elocal, rows)
    weight_JxQ = take(weight_UxK.reshape(A), assignment_JxQ)
    chunk_rows = CHUNK_ROWS if on_cpu else ACCELERATOR_CHUNK_ROWS
    y_Uxd = streamed_blocks(chunk_rows, x_Uxd, assignment_JxQ // K, weight_JxQ, experts, expert_J, used)
    return _scattered_row(y_Uxd, expert_parallel).reshape(R, T, d).astype(x_RxTxd.dtype)


def sorted_rows(
    x_RxTxd: jax.Array, choice: Choice, Elocal: int, expert_parallel: int, tile: int
) -> tuple[jax.Array, jax.Array, jax.Array, tuple[jax.Array, jax.Array]]:
    """(rows_Pxd, weight_P, load_Elocal, the map that `combined_rows` takes): the rows of this device's experts, expert
    by expert, then zeros. P is a multiple of `tile` with room for any routing: all of the expert row's assignments."""
    x_Uxd, expert_UxK, weight_UxK = _gathered_row(x_RxTxd, choice, Elocal, expert_parallel)
    (U, K), A = expert_UxK.shape, expert_UxK.size
    expert_A = expert_UxK.reshape(A)
    _, order_A = sort_by_expert(expert_A, Elocal + 1)
    load_Elocal = jnp.zeros(Elocal, jnp.int32).at[expert_A].add(1, mode="drop")
    P = -(-A // tile) * tile
    assignment_P = jnp.where(jnp.arange(P) < load_Elocal.sum(), jnp.pad(order_A, (0, P - A)), A)
    place_A = jnp.zeros_like(order_A).at[order_A].set(jnp.arange(A, dtype=jnp.int32), unique_indices=True)
    place_A = jnp.where(expert_A < Elocal, place_A, P)
    token_P, place_UxK = assignment_P // K, place_A.reshape(U, K)  # U where empty: an empty row's assignment is A
    weight_Px1 = spread(weight_UxK.reshape(A, 1), assignment_P, place_A[:, None])
    return spread(x_Uxd, token_P, place_UxK), weight_Px1[:, 0], load_Elocal, (token_P, place_UxK)


def combined_rows(
    out_Pxd: jax.Array, maps: tuple[jax.Array, jax.Array], shape: tuple[int, int, int], expert_parallel: int
) -> jax.Array:
    """y_RxTxd of `shape`: the sum of each token's rows, over all devices of the expert row."""
    y_Uxd = collect(out_Pxd.astype(accumulation_dtype(out_Pxd.dtype)) if expert_parallel > 1 else out_Pxd, *maps)
    return _scattered_row(y_Uxd, expert_parallel).reshape(shape).astype(out_Pxd.dtype)


def _gathered_row(x_RxTxd, choice, Elocal, expert_parallel):
    """(x_Uxd, expert_UxK, weight_UxK) of all tokens of the expert row; experts are numbered from this device's first,
    and those of others are Elocal."""
    R, T, d = x_RxTxd.shape
    x_Uxd = x_RxTxd.reshape(R * T, d)
    expert_UxK, weight_UxK = (a.reshape(R * T, -1) for a in (choice.expert_RxTxK, choice.weight_RxTxK))
    if expert_parallel > 1:
        given = (x_Uxd, expert_UxK, weight_UxK)
        x_Uxd, expert_UxK, weight_UxK = saved([jax.lax.all_gather(a, EXPERT, tiled=True) for a in given])
        expert_UxK = expert_UxK - Elocal * jax.lax.axis_index(EXPERT)
        expert_UxK = jnp.where((expert_UxK >= 0) & (expert_UxK < Elocal), expert_UxK, Elocal)  # others' come last
    return x_Uxd, expert_UxK, weight_UxK


def _scattered_row(y_Uxd: jax.Array, expert_parallel: int) -> jax.Array:
    """This device's tokens of the expert row, added up over its devices."""
    return jax.lax.psum_scatter(y_Uxd, EXPERT, tiled=True) if expert_parallel > 1 else y_Uxd


def block_rows(assignments: int, n_experts: int, on_cpu: bool) -> int:
    """Q: as many as an expert gets on average, to a power of two from 8 to 256, on an accelerator to 512 (an H200 is a
    fifth faster with these). Smaller blocks read the experts' matrices more often, larger ones pad more."""
    return 2 ** min(max((assignments // n_experts).bit_length() - 1, 3), 8 if on_cpu else 9)


def _blocks(expert_A: jax.Array, Elocal: int, Q: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(assignment_JxQ, A where empty; expert_J; how many blocks are used), each block of one expert's assignments in
    their order. Assignments of expert Elocal are another device's. J = ceil(A / Q) + Elocal is enough for any
    routing."""
    A = len(expert_A)
    J = -(-A // Q) + Elocal
    _, order_A = sort_by_expert(expert_A, Elocal + 1)
    load_Elocal = jnp.zeros(Elocal, jnp.int32).at[expert_A].add(1, mode="drop")
    first_Elocal = jnp.cumsum(load_Elocal) - load_Elocal
    end_block_Elocal = jnp.cumsum(-(-load_Elocal // Q))
    expert_J = jnp.searchsorted(end_block_Elocal, jnp.arange(J, dtype=jnp.int32), side="right").astype(jnp.int32)
    used_J = expert_J < Elocal
    expert_J = jnp.where(used_J, expert_J, 0)
    block_of_expert_J = jnp.arange(J, dtype=jnp.int32) - (end_block_Elocal - -(-load_Elocal // Q))[expert_J]
    rank_JxQ = block_of_expert_J[:, None] * Q + jnp.arange(Q, dtype=jnp.int32)[None, :]
    filled_JxQ = used_J[:, None] & (rank_JxQ < load_Elocal[expert_J][:, None])
    place_JxQ = jnp.where(filled_JxQ, first_Elocal[expert_J][:, None] + rank_JxQ, A)
    return jnp.where(filled_JxQ, take(order_A, place_JxQ), A), expert_J, end_block_Elocal[-1]


def dense(x_RxTxd: jax.Array, slots: Slots, experts: Experts) -> jax.Array:
    """y_RxTxd as `slots` gives it, from every expert on every token; `experts` holds them all."""
    R, T, d = x_RxTxd.shape
    weight_RxTxE = combine_weights(slots, T)
    E = weight_RxTxE.shape[-1]
    x_ExUxd = jnp.broadcast_to(x_RxTxd.reshape(1, R * T, d), (E, R * T, d))
    out_ExUxd = experts(x_ExUxd, jnp.ones((E, R * T), weight_RxTxE.dtype))
    out_ExRxTxd = out_ExUxd.reshape(E, R, T, d).astype(weight_RxTxE.dtype)
    return jnp.einsum("RTE,ERTd->RTd", weight_RxTxE, out_ExRxTxd).astype(x_RxTxd.dtype)


def _rows_of_tokens(slots: Slots) -> jax.Array | None:
    """row_UxK: the place of each of a token's assignments among all P = E·R·C, expert by expert and group by group; P:
    dropped. None with expert choice."""
    if slots.slot_RxTxK is None:
        return None
    R, E, C = slots.token_RxExC.shape
    e_RxTxK, c_RxTxK = jnp.divmod(slots.slot_RxTxK, C)
    r_Rx1x1 = jnp.arange(R, dtype=jnp.int32)[:, None, None]
    row_RxTxK = jnp.where(e_RxTxK < E, (e_RxTxK * R + r_Rx1x1) * C + c_RxTxK, E * R * C)
    return row_RxTxK.reshape(-1, row_RxTxK.shape[-1])


def _exchanged(x_Uxd, token_ExQ, weight_ExQ, row_UxK, experts, expert_parallel):
    """Rows go to the devices of their experts, through them, and back."""
    (E, Q), d = token_ExQ.shape, x_Uxd.shape[-1]
    token_P = token_ExQ.reshape(E * Q)
    rows_Pxd = take(x_Uxd, token_P) if row_UxK is None else spread(x_Uxd, token_P, row_UxK)
    rows_ExQxd = rows_Pxd.reshape(E, Q, d)
    if expert_parallel == 1:
        out_ExQxd = experts(rows_ExQxd, weight_ExQ)
    else:
        there = saved([jax.lax.all_to_all(a, EXPERT, 0, 1, tiled=True) for a in (rows_ExQxd, weight_ExQ)])
        out_ExQxd = jax.lax.all_to_all(experts(*there), EXPERT, 1, 0, tiled=True)
    out_Pxd = out_ExQxd.reshape(E * Q, d)
    if row_UxK is not None:
        return collect(out_Pxd, token_P, row_UxK)
    out_Pxd = out_Pxd.astype(accumulation_dtype(out_Pxd.dtype))
    return jnp.zeros_like(x_Uxd, out_Pxd.dtype).at[token_P].add(out_Pxd, mode="drop")
