"""Experts in chunks of rows, so that the rows of all of them are never there at once.

On a CPU, memory that is touched for the first time costs more than the arithmetic (a page fault every 4 KB), and a
scatter-add is a loop over rows in cache. So a chunk's rows are gathered, multiplied and added to the sum, chunk after
chunk. Only the hidden values are kept, as many as the dense twin's; rows are gathered again in the backward pass. On
other devices few large chunks keep the device busy; each reads its experts' matrices into a buffer of its own.

    N  tokens                  E  experts               S  rows of an expert, or of a block
    d  d_model                 B  blocks, each of one expert's rows
    n  chunks
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
def streamed(x_Nxd: jax.Array, token_ExS: jax.Array, weight_ExS: jax.Array, experts: Experts) -> jax.Array:
    """y_Nxd in the weights' precision: Σ of the experts' outputs over each token's rows. Row (e, s) is of token
    token_ExS, N where empty."""
    return _streamed_fwd(x_Nxd, token_ExS, weight_ExS, experts)[0]


def _streamed_fwd(x_Nxd, token_ExS, weight_ExS, experts):
    def chunk(y_Nxd, part):
        return _forward(y_Nxd, x_Nxd, *part)

    parts = _chunks((token_ExS, weight_ExS, experts), token_ExS.shape)
    y_Nxd, h = jax.lax.scan(chunk, jnp.zeros_like(x_Nxd, weight_ExS.dtype), parts)
    return y_Nxd, (x_Nxd, token_ExS, weight_ExS, experts, h)


def _streamed_bwd(saved, d_y_Nxd):
    x_Nxd, token_ExS, weight_ExS, experts, h = saved
    d_y_Nxd = d_y_Nxd.astype(x_Nxd.dtype)

    def chunk(d_x_Nxd, part):
        d_x_Nxd, *gradients = _backward(d_x_Nxd, d_y_Nxd, x_Nxd, *part)
        return d_x_Nxd, gradients

    parts = (*_chunks((token_ExS, weight_ExS, experts), token_ExS.shape), h)
    d_x_Nxd, gradients = jax.lax.scan(chunk, jnp.zeros_like(x_Nxd, weight_ExS.dtype), parts)
    d_weight_ExS, d_experts = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), gradients)
    return d_x_Nxd.astype(x_Nxd.dtype), None, d_weight_ExS, d_experts


streamed.defvjp(_streamed_fwd, _streamed_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def streamed_blocks(
    chunk_rows: int,
    x_Nxd: jax.Array,
    token_BxS: jax.Array,
    weight_BxS: jax.Array,
    experts: Experts,
    expert_B: jax.Array,
    used: jax.Array,
) -> jax.Array:
    """As `streamed`, of blocks whose experts are expert_B; blocks from `used` on are empty and cost nothing."""
    return _streamed_blocks_fwd(chunk_rows, x_Nxd, token_BxS, weight_BxS, experts, expert_B, used)[0]


def _streamed_blocks_fwd(chunk_rows, x_Nxd, token_BxS, weight_BxS, experts, expert_B, used):
    parts = _block_chunks(chunk_rows, token_BxS, weight_BxS, expert_B, len(x_Nxd))

    def chunk(i, carry):
        y_Nxd, all_h = carry
        token, weight, expert = _at(parts, i)
        y_Nxd, h = _forward(y_Nxd, x_Nxd, token, weight, jax.tree.map(lambda w: w[expert], experts))
        return y_Nxd, jax.tree.map(lambda a, part: a.at[i].set(part), all_h, h)

    n, blocks, S = parts[0].shape
    nothing = jnp.zeros_like(weight_BxS, shape=(), dtype=x_Nxd.dtype)  # varying over the mesh as everything here
    all_h = tuple(jnp.full((n, blocks, S, w.shape[-1]), nothing) for w in experts.w_in)
    carry = (jnp.zeros_like(x_Nxd, weight_BxS.dtype), all_h)
    y_Nxd, all_h = jax.lax.fori_loop(0, -(-used // blocks), chunk, carry)
    return y_Nxd, (x_Nxd, token_BxS, weight_BxS, experts, expert_B, used, all_h)


def _streamed_blocks_bwd(chunk_rows, saved, d_y_Nxd):
    x_Nxd, token_BxS, weight_BxS, experts, expert_B, used, all_h = saved
    d_y_Nxd = d_y_Nxd.astype(x_Nxd.dtype)
    parts = _block_chunks(chunk_rows, token_BxS, weight_BxS, expert_B, len(x_Nxd))

    def chunk(i, carry):
        d_x_Nxd, d_weight, d_experts = carry
        (token, weight, expert), h = _at((parts, all_h), i)
        part = jax.tree.map(lambda w: w[expert], experts)
        d_x_Nxd, d_weight_part, d_part = _backward(d_x_Nxd, d_y_Nxd, x_Nxd, token, weight, part, h)
        d_experts = jax.tree.map(lambda d, p: d.at[expert].add(p.astype(d.dtype)), d_experts, d_part)
        return d_x_Nxd, d_weight.at[i].set(d_weight_part), d_experts

    wide = weight_BxS.dtype
    carry = (
        jnp.zeros_like(x_Nxd, wide),
        jnp.zeros_like(parts[1]),
        jax.tree.map(lambda w: jnp.zeros_like(w, wide), experts),
    )
    d_x_Nxd, d_weight, d_experts = jax.lax.fori_loop(0, -(-used // parts[0].shape[1]), chunk, carry)
    d_weight_BxS = d_weight.reshape(-1, token_BxS.shape[1])[: len(token_BxS)]
    d_experts = jax.tree.map(lambda d, w: d.astype(w.dtype), d_experts, experts)
    return d_x_Nxd.astype(x_Nxd.dtype), None, d_weight_BxS, d_experts, None, None


streamed_blocks.defvjp(_streamed_blocks_fwd, _streamed_blocks_bwd)


def _forward(y_Nxd, x_Nxd, token_ExS, weight_ExS, experts: Experts):
    """(y_Nxd with a chunk's outputs added, the chunk's hidden values)."""
    h = hidden(take(x_Nxd, token_ExS), experts.w_in)
    out_ExSxd = output(experts.activation, h, weight_ExS, experts.w_out_Exfxd)
    return y_Nxd.at[token_ExS].add(out_ExSxd.astype(y_Nxd.dtype), mode="drop"), h


def _backward(d_x_Nxd, d_y_Nxd, x_Nxd, token_ExS, weight_ExS, experts: Experts, h):
    """(d_x_Nxd with a chunk's part added, d_weight_ExS, gradients of the chunk's experts)."""
    _, output_vjp = jax.vjp(lambda *a: output(experts.activation, *a), h, weight_ExS, experts.w_out_Exfxd)
    d_h, d_weight_ExS, d_w_out = output_vjp(take(d_y_Nxd, token_ExS))
    _, hidden_vjp = jax.vjp(hidden, take(x_Nxd, token_ExS), experts.w_in)
    d_rows_ExSxd, d_w_in = hidden_vjp(d_h)
    d_x_Nxd = d_x_Nxd.at[token_ExS].add(d_rows_ExSxd.astype(d_x_Nxd.dtype), mode="drop")
    return d_x_Nxd, d_weight_ExS, experts.replace(w_in=d_w_in, w_out_Exfxd=d_w_out)


def _chunks(arrays: Any, shape: tuple[int, int]) -> Any:
    """Arrays over all E experts as (chunks, experts of a chunk, …): the largest chunks of up to CHUNK_ROWS rows."""
    E, S = shape
    size = max(n for n in range(1, E + 1) if E % n == 0 and (n == 1 or n * S <= CHUNK_ROWS))
    return jax.tree.map(lambda a: a.reshape(E // size, size, *a.shape[1:]), arrays)


def _block_chunks(chunk_rows: int, token_BxS, weight_BxS, expert_B, N: int):
    """(token, weight, expert) as (chunks, blocks of a chunk, …), filled up with empty blocks."""
    B, S = token_BxS.shape
    size = max(min(chunk_rows // S, B), 1)
    more = -B % size
    token_BxS = jnp.pad(token_BxS, ((0, more), (0, 0)), constant_values=N)
    weight_BxS, expert_B = jnp.pad(weight_BxS, ((0, more), (0, 0))), jnp.pad(expert_B, (0, more))
    return tuple(a.reshape(-1, size, *a.shape[1:]) for a in (token_BxS, weight_BxS, expert_B))


def _at(arrays: Any, i: jax.Array) -> Any:
    return jax.tree.map(lambda a: jax.lax.dynamic_index_in_dim(a, i, keepdims=False), arrays)
