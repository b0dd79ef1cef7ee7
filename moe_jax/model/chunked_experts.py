"""Experts in chunks of rows, so that the rows of all experts are never in memory at once.

On a CPU, memory that is touched for the first time costs more than the arithmetic (a page fault every 4 KB), and a
scatter-add is a loop over rows in cache. So the rows of a chunk are gathered, multiplied and added to the sum, chunk
after chunk. Only the hidden values are kept, as many as the dense twin's; rows are gathered again in the backward pass.
Other devices take few large chunks, which keep them busy; each reads its experts' matrices into a buffer of its own.

U  tokens     E  experts                            Q  rows of an expert or of a block
d  d_model    J  blocks, each of one expert's rows  n  chunks
e  experts or blocks of a chunk
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from moe_jax.model.experts import Experts, hidden, output
from moe_jax.model.gathers import take

CHUNK_ROWS = 2048  # they and their hidden values fit a core's cache at d of a few hundred
ACCELERATOR_CHUNK_ROWS = 16384  # an H200 is no faster with four times as many


@jax.custom_vjp
def streamed(x_Uxd: jax.Array, token_ExQ: jax.Array, weight_ExQ: jax.Array, experts: Experts) -> jax.Array:
    """y_Uxd in the weights' precision: the sum of the experts' outputs over each token's rows.

    Row (e, q) holds token token_ExQ[e, q]; U marks an empty row."""
    return _streamed_fwd(x_Uxd, token_ExQ, weight_ExQ, experts)[0]


def _streamed_fwd(x_Uxd, token_ExQ, weight_ExQ, experts):
    def chunk(y_Uxd, part):
        return _forward(y_Uxd, x_Uxd, *part)

    parts = _chunks((token_ExQ, weight_ExQ, experts), token_ExQ.shape)
    y_Uxd, h = jax.lax.scan(chunk, jnp.zeros_like(x_Uxd, weight_ExQ.dtype), parts)
    return y_Uxd, (x_Uxd, token_ExQ, weight_ExQ, experts, h)


def _streamed_bwd(saved, d_y_Uxd):
    x_Uxd, token_ExQ, weight_ExQ, experts, h = saved
    d_y_Uxd = d_y_Uxd.astype(x_Uxd.dtype)

    def chunk(d_x_Uxd, part):
        d_x_Uxd, *gradients = _backward(d_x_Uxd, d_y_Uxd, x_Uxd, *part)
        return d_x_Uxd, gradients

    parts = (*_chunks((token_ExQ, weight_ExQ, experts), token_ExQ.shape), h)
    d_x_Uxd, gradients = jax.lax.scan(chunk, jnp.zeros_like(x_Uxd, weight_ExQ.dtype), parts)
    d_weight_ExQ, d_experts = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), gradients)
    return d_x_Uxd.astype(x_Uxd.dtype), None, d_weight_ExQ, d_experts


streamed.defvjp(_streamed_fwd, _streamed_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def streamed_blocks(
    chunk_rows: int,
    x_Uxd: jax.Array,
    token_JxQ: jax.Array,
    weight_JxQ: jax.Array,
    experts: Experts,
    expert_J: jax.Array,
    used: jax.Array,
) -> jax.Array:
    """As `streamed`, over blocks, each of expert expert_J; blocks from `used` on are empty and cost nothing."""
    return _streamed_blocks_fwd(chunk_rows, x_Uxd, token_JxQ, weight_JxQ, experts, expert_J, used)[0]


def _streamed_blocks_fwd(chunk_rows, x_Uxd, token_JxQ, weight_JxQ, experts, expert_J, used):
    parts = _block_chunks(chunk_rows, token_JxQ, weight_JxQ, expert_J, len(x_Uxd))

    def chunk(i, carry):
        y_Uxd, all_h = carry
        token, weight, expert = _at(parts, i)
        y_Uxd, h = _forward(y_Uxd, x_Uxd, token, weight, jax.tree.map(lambda w: w[expert], experts))
        return y_Uxd, all_h.at[i].set(h)

    n, size, Q = parts[0].shape
    nothing = jnp.zeros_like(weight_JxQ, shape=(), dtype=x_Uxd.dtype)  # varying over the mesh as everything here
    all_h = jnp.full((n, size, Q, experts.w_in_ExdxF.shape[-1]), nothing)
    carry = (jnp.zeros_like(x_Uxd, weight_JxQ.dtype), all_h)
    y_Uxd, all_h = jax.lax.fori_loop(0, -(-used // size), chunk, carry)
    return y_Uxd, (x_Uxd, token_JxQ, weight_JxQ, experts, expert_J, used, all_h)


def _streamed_blocks_bwd(chunk_rows, saved, d_y_Uxd):
    x_Uxd, token_JxQ, weight_JxQ, experts, expert_J, used, all_h = saved
    d_y_Uxd = d_y_Uxd.astype(x_Uxd.dtype)
    parts = _block_chunks(chunk_rows, token_JxQ, weight_JxQ, expert_J, len(x_Uxd))

    def chunk(i, carry):
        d_x_Uxd, d_weight, d_experts = carry
        (token, weight, expert), h = _at((parts, all_h), i)
        part = jax.tree.map(lambda w: w[expert], experts)
        d_x_Uxd, d_weight_part, d_part = _backward(d_x_Uxd, d_y_Uxd, x_Uxd, token, weight, part, h)
        d_experts = jax.tree.map(lambda d, p: d.at[expert].add(p.astype(d.dtype)), d_experts, d_part)
        return d_x_Uxd, d_weight.at[i].set(d_weight_part), d_experts

    carry = (
        jnp.zeros_like(x_Uxd, weight_JxQ.dtype),
        jnp.zeros_like(parts[1]),
        jax.tree.map(lambda w: jnp.zeros_like(w, weight_JxQ.dtype), experts),
    )
    d_x_Uxd, d_weight, d_experts = jax.lax.fori_loop(0, -(-used // parts[0].shape[1]), chunk, carry)
    d_weight_JxQ = d_weight.reshape(-1, token_JxQ.shape[1])[: len(token_JxQ)]
    d_experts = jax.tree.map(lambda d, w: d.astype(w.dtype), d_experts, experts)
    return d_x_Uxd.astype(x_Uxd.dtype), None, d_weight_JxQ, d_experts, None, None


streamed_blocks.defvjp(_streamed_blocks_fwd, _streamed_blocks_bwd)


def _forward(y_Uxd, x_Uxd, token_exQ, weight_exQ, experts: Experts):
    """(y_Uxd plus a chunk's outputs, the chunk's hidden values)."""
    h = hidden(take(x_Uxd, token_exQ), experts.w_in_ExdxF)
    out_exQxd = output(experts.activation, h, weight_exQ, experts.w_out_Exfxd)
    return y_Uxd.at[token_exQ].add(out_exQxd.astype(y_Uxd.dtype), mode="drop"), h


def _backward(d_x_Uxd, d_y_Uxd, x_Uxd, token_exQ, weight_exQ, experts: Experts, h):
    """(d_x_Uxd plus a chunk's part, d_weight_exQ, gradients of the chunk's experts)."""
    _, output_vjp = jax.vjp(lambda *a: output(experts.activation, *a), h, weight_exQ, experts.w_out_Exfxd)
    d_h, d_weight_exQ, d_w_out = output_vjp(take(d_y_Uxd, token_exQ))
    _, hidden_vjp = jax.vjp(hidden, take(x_Uxd, token_exQ), experts.w_in_ExdxF)
    d_rows_exQxd, d_w_in = hidden_vjp(d_h)
    d_x_Uxd = d_x_Uxd.at[token_exQ].add(d_rows_exQxd.astype(d_x_Uxd.dtype), mode="drop")
    return d_x_Uxd, d_weight_exQ, experts.replace(w_in_ExdxF=d_w_in, w_out_Exfxd=d_w_out)


def _chunks(arrays: Any, shape: tuple[int, int]) -> Any:
    """Arrays over E experts as arrays (n, e, …), with the largest chunks of up to CHUNK_ROWS rows."""
    E, Q = shape
    size = max(n for n in range(1, E + 1) if E % n == 0 and (n == 1 or n * Q <= CHUNK_ROWS))
    return jax.tree.map(lambda a: a.reshape(E // size, size, *a.shape[1:]), arrays)


def _block_chunks(chunk_rows: int, token_JxQ, weight_JxQ, expert_J, U: int):
    """(token, weight, expert) as arrays (n, e, …), filled up with empty blocks."""
    J, Q = token_JxQ.shape
    size = max(min(chunk_rows // Q, J), 1)
    more = -J % size
    token_JxQ = jnp.pad(token_JxQ, ((0, more), (0, 0)), constant_values=U)
    weight_JxQ, expert_J = jnp.pad(weight_JxQ, ((0, more), (0, 0))), jnp.pad(expert_J, (0, more))
    return tuple(a.reshape(-1, size, *a.shape[1:]) for a in (token_JxQ, weight_JxQ, expert_J))


def _at(arrays: Any, i: jax.Array) -> Any:
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), arrays)
