"""Tokens to experts and back, on one device's share of the mesh (called inside shard_map).

`slots` gathers each expert's tokens into its slots, sends slots to the devices that hold the experts, multiplies, sends
back, and adds up. `dense` runs every expert on every token: the oracle of the tests.

    G  routing groups on this device    E  experts             R  slots of all experts and groups, E·G·C
    T  tokens of a group                C  slots of an expert  d  d_model
    N  tokens on this device, G·T       K  experts a token     S  rows of an expert: G·C, more after an exchange
"""

import jax
import jax.numpy as jnp

from moe_jax.model import routing
from moe_jax.model.experts import Experts, hidden, output
from moe_jax.model.gathers import collect, spread, take, wide
from moe_jax.model.routing import Slots
from moe_jax.sharding import EXPERT

CHUNK_ROWS = 1024  # rows of a chunk of `streamed`: they and their hidden values fit a core's cache


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
        there = [jax.lax.all_to_all(a, EXPERT, 0, 1, tiled=True) for a in (rows_ExSxd, weight_ExS)]
        out_ExSxd = jax.lax.all_to_all(experts(*there), EXPERT, 1, 0, tiled=True)
    out_Rxd = out_ExSxd.reshape(E * S, d)
    if row_NxK is not None:
        return collect(out_Rxd, token_R, row_NxK)
    return jnp.zeros_like(x_Nxd, wide(out_Rxd)).at[token_R].add(out_Rxd.astype(wide(out_Rxd)), mode="drop")


# On a CPU, memory that is touched for the first time costs more than the arithmetic (a page fault every 4 KB), and a
# scatter-add is a loop over rows in cache. So there the experts run in chunks: gather a chunk's rows, multiply, add to
# the sum. Only the hidden values are kept, as many as the dense twin's; rows are gathered again in the backward pass.


@jax.custom_vjp
def streamed(x_Nxd: jax.Array, token_ExS: jax.Array, weight_ExS: jax.Array, experts: Experts) -> jax.Array:
    """y_Nxd in the weights' precision: Σ of the experts' outputs over each token's rows. Row (e, s) is of token
    token_ExS, N where empty."""
    return _streamed_fwd(x_Nxd, token_ExS, weight_ExS, experts)[0]


def _streamed_fwd(x_Nxd, token_ExS, weight_ExS, experts):
    def chunk(y_Nxd, part):
        token_ExS, weight_ExS, experts = part
        h = hidden(take(x_Nxd, token_ExS), experts.w_in)
        out_ExSxd = output(experts.activation, h, weight_ExS, experts.w_out_Exfxd)
        return y_Nxd.at[token_ExS].add(out_ExSxd.astype(y_Nxd.dtype), mode="drop"), h

    y_Nxd, h = jax.lax.scan(
        chunk, jnp.zeros_like(x_Nxd, weight_ExS.dtype), _chunks((token_ExS, weight_ExS, experts), token_ExS.shape)
    )
    return y_Nxd, (x_Nxd, token_ExS, weight_ExS, experts, h)


def _streamed_bwd(saved, d_y_Nxd):
    x_Nxd, token_ExS, weight_ExS, experts, h = saved
    d_y_Nxd = d_y_Nxd.astype(x_Nxd.dtype)

    def chunk(d_x_Nxd, part):
        (token_ExS, weight_ExS, experts), h = part
        _, output_vjp = jax.vjp(lambda *a: output(experts.activation, *a), h, weight_ExS, experts.w_out_Exfxd)
        d_h, d_weight_ExS, d_w_out = output_vjp(take(d_y_Nxd, token_ExS))
        _, hidden_vjp = jax.vjp(hidden, take(x_Nxd, token_ExS), experts.w_in)
        d_rows_ExSxd, d_w_in = hidden_vjp(d_h)
        d_x_Nxd = d_x_Nxd.at[token_ExS].add(d_rows_ExSxd.astype(d_x_Nxd.dtype), mode="drop")
        return d_x_Nxd, (d_weight_ExS, experts.replace(w_in=d_w_in, w_out_Exfxd=d_w_out))

    parts = (_chunks((token_ExS, weight_ExS, experts), token_ExS.shape), h)
    d_x_Nxd, gradients = jax.lax.scan(chunk, jnp.zeros_like(x_Nxd, weight_ExS.dtype), parts)
    d_weight_ExS, d_experts = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), gradients)
    return d_x_Nxd.astype(x_Nxd.dtype), None, d_weight_ExS, d_experts


streamed.defvjp(_streamed_fwd, _streamed_bwd)


def _chunks(arrays, shape: tuple[int, int]):
    """Arrays over all E experts as (chunks, experts of a chunk, …): the largest chunks of up to CHUNK_ROWS rows."""
    E, S = shape
    size = max(n for n in range(1, E + 1) if E % n == 0 and (n == 1 or n * S <= CHUNK_ROWS))
    return jax.tree.map(lambda a: a.reshape(E // size, size, *a.shape[1:]), arrays)
