"""Rows by index, with a backward pass that gathers too where the inverse map is known.

The backward pass of a gather is a scatter-add, which is slow on accelerators. Dispatch knows both directions of its
map, N source rows -> R places and back, so each direction's backward pass is a gather over the other.

N  source rows    R  places, each of one source row or empty    K  places of a source row    d  width
"""

import jax
import jax.numpy as jnp


def take(rows_Nxd: jax.Array, index: jax.Array) -> jax.Array:
    """rows[index]; zeros where the index is past the end."""
    return rows_Nxd.at[index].get(mode="fill", fill_value=0)


@jax.custom_vjp
def spread(x_Nxd: jax.Array, source_R: jax.Array, place_NxK: jax.Array) -> jax.Array:
    """x_Nxd[source_R], zeros where source_R is N. place_NxK is the inverse map, R where a source row has no place."""
    return take(x_Nxd, source_R)


@jax.custom_vjp
def collect(rows_Rxd: jax.Array, source_R: jax.Array, place_NxK: jax.Array) -> jax.Array:
    """Σ_K rows_Rxd[place_NxK], added up in at least float32: the transpose of `spread`."""
    return take(rows_Rxd, place_NxK).astype(wide(rows_Rxd)).sum(1).astype(rows_Rxd.dtype)


def wide(rows: jax.Array) -> jnp.dtype:
    return jnp.promote_types(rows.dtype, jnp.float32)


def _spread_bwd(maps, d_rows_Rxd):
    return collect(d_rows_Rxd, *maps), None, None


def _collect_bwd(maps, d_x_Nxd):
    return spread(d_x_Nxd, *maps), None, None


spread.defvjp(lambda x_Nxd, *maps: (spread(x_Nxd, *maps), maps), _spread_bwd)
collect.defvjp(lambda rows_Rxd, *maps: (collect(rows_Rxd, *maps), maps), _collect_bwd)
