"""Tokens to experts and back, on one device's share of the mesh (called inside shard_map).

`slots` gathers each expert's tokens into its slots, sends slots to the devices that hold the experts, multiplies, sends
back, and gathers. `dense` runs every expert on every token: the oracle of the tests.

    G  routing groups on this device    E  experts             R  slots of all experts and groups, E·G·C
    T  tokens of a group                C  slots of an expert  d  d_model
    N  tokens on this device, G·T       K  experts a token     S  rows of an expert after the exchange
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from moe_jax.model import routing as routing_lib
from moe_jax.model.routing import Routing
from moe_jax.sharding import EXPERT

# rows_ExSxd -> rows_ExSxd, over the experts that this device holds
Experts = Callable[[jax.Array], jax.Array]


def slots(x_GxTxd: jax.Array, routing: Routing, experts: Experts, expert_parallel: int) -> jax.Array:
    """y_GxTxd: the weighted sum of each token's experts, those that had a slot for it."""
    G, T, d = x_GxTxd.shape
    _, E, C = routing.token_GxExC.shape
    g = jnp.arange(G)
    token_ExGxC = routing.token_GxExC.swapaxes(0, 1)
    empty_ExGxC = token_ExGxC == T
    token_R = jnp.where(empty_ExGxC, G * T, token_ExGxC + g[None, :, None] * T).reshape(E * G * C)
    x_Nxd = x_GxTxd.reshape(G * T, d)
    if routing.slot_GxTxK is None:
        rows_Rxd = x_Nxd[token_R]
    else:
        e_GxTxK, c_GxTxK = jnp.divmod(routing.slot_GxTxK, C)
        row_GxTxK = jnp.where(e_GxTxK < E, (e_GxTxK * G + g[:, None, None]) * C + c_GxTxK, E * G * C)
        row_NxK = row_GxTxK.reshape(G * T, -1)
        rows_Rxd = gather_rows(x_Nxd, token_R, row_NxK)
    out_Rxd = _exchange(rows_Rxd.reshape(E, G * C, d), experts, expert_parallel).reshape(E * G * C, d)
    if routing.slot_GxTxK is None:
        weight_R = routing.weight_GxExC.swapaxes(0, 1).reshape(E * G * C)
        y_Nxd = jnp.zeros_like(x_Nxd, weight_R.dtype).at[token_R].add(out_Rxd * weight_R[:, None])
    else:
        weight_NxK = routing.weight_GxTxK.reshape(G * T, -1)
        y_Nxd = combine_rows(out_Rxd, weight_NxK, token_R, row_NxK)
    return y_Nxd.reshape(G, T, d).astype(x_GxTxd.dtype)


def dense(x_GxTxd: jax.Array, routing: Routing, experts: Experts) -> jax.Array:
    """y_GxTxd as `slots` gives it, from every expert on every token; `experts` holds them all."""
    G, T, d = x_GxTxd.shape
    weight_GxTxE = routing_lib.combine_weights(routing, T)
    E = weight_GxTxE.shape[-1]
    x_ExNxd = jnp.broadcast_to(x_GxTxd.reshape(1, G * T, d), (E, G * T, d))
    out_ExGxTxd = experts(x_ExNxd).reshape(E, G, T, d)
    return jnp.einsum("GTE,EGTd->GTd", weight_GxTxE, out_ExGxTxd.astype(weight_GxTxE.dtype)).astype(x_GxTxd.dtype)


def _exchange(rows_ExSxd: jax.Array, experts: Experts, expert_parallel: int) -> jax.Array:
    """Rows go to the devices of their experts, through them, and back."""
    if expert_parallel == 1:
        return experts(rows_ExSxd)
    here = jax.lax.all_to_all(rows_ExSxd, EXPERT, split_axis=0, concat_axis=1, tiled=True)
    return jax.lax.all_to_all(experts(here), EXPERT, split_axis=1, concat_axis=0, tiled=True)


def _take(rows: jax.Array, index: jax.Array) -> jax.Array:
    """rows[index]; zeros where the index is one past the end."""
    return rows.at[index].get(mode="fill", fill_value=0)


# Token choice knows the map in both directions, so each gather's backward pass is a gather over the other direction
# instead of a scatter-add, which is slow on every kind of device.


@jax.custom_vjp
def gather_rows(x_Nxd: jax.Array, token_R: jax.Array, row_NxK: jax.Array) -> jax.Array:
    """rows_Rxd = x_Nxd[token_R], zeros in empty slots (token N). row_NxK is the inverse map (row R: dropped)."""
    return _take(x_Nxd, token_R)


def _gather_rows_fwd(x_Nxd, token_R, row_NxK):
    return gather_rows(x_Nxd, token_R, row_NxK), row_NxK


def _gather_rows_bwd(row_NxK, d_rows_Rxd):
    return _take(d_rows_Rxd, row_NxK).sum(1), None, None


gather_rows.defvjp(_gather_rows_fwd, _gather_rows_bwd)


@jax.custom_vjp
def combine_rows(out_Rxd: jax.Array, weight_NxK: jax.Array, token_R: jax.Array, row_NxK: jax.Array) -> jax.Array:
    """y_Nxd = Σ_K weight_NxK · out_Rxd[row_NxK], in the weights' precision; dropped rows count nothing."""
    return jnp.einsum("NK,NKd->Nd", weight_NxK, _take(out_Rxd, row_NxK).astype(weight_NxK.dtype))


def _combine_rows_fwd(out_Rxd, weight_NxK, token_R, row_NxK):
    return combine_rows(out_Rxd, weight_NxK, token_R, row_NxK), (out_Rxd, weight_NxK, token_R, row_NxK)


def _combine_rows_bwd(saved, d_y_Nxd):
    out_Rxd, weight_NxK, token_R, row_NxK = saved
    # The weight of a row is that of its one assignment: scattered as numbers, R of them, not as rows of d.
    R = out_Rxd.shape[0]
    weight_R = (
        jnp.zeros(R, weight_NxK.dtype)
        .at[row_NxK.reshape(-1)]
        .set(weight_NxK.reshape(-1), mode="drop", unique_indices=False)
    )
    d_out_Rxd = (_take(d_y_Nxd, token_R) * weight_R[:, None]).astype(out_Rxd.dtype)
    d_weight_NxK = jnp.einsum("Nd,NKd->NK", d_y_Nxd, _take(out_Rxd, row_NxK).astype(d_y_Nxd.dtype))
    return d_out_Rxd, d_weight_NxK, None, None


combine_rows.defvjp(_combine_rows_fwd, _combine_rows_bwd)
