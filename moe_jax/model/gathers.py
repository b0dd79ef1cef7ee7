"""Rows by index, with a backward pass that gathers too where the inverse map is known.

The backward pass of a gather is a scatter-add, which is slow on accelerators. Dispatch knows both directions of its
map, U source rows -> P places and back, so each direction's backward pass is a gather over the other.

U  source rows    P  places, each of one source row or empty    K  places of a source row    d  width
"""

import jax

from moe_jax.model.precision import accumulation_dtype


def take(rows_Uxd: jax.Array, index: jax.Array) -> jax.Array:
    """rows[index]; zeros where the index is past the end."""
    return rows_Uxd.at[index].get(mode="fill", fill_value=0)


@jax.custom_vjp
def spread(x_Uxd: jax.Array, source_P: jax.Array, place_UxK: jax.Array) -> jax.Array:
    """x_Uxd[source_P], zeros where source_P is U. place_UxK is the inverse map, P where a source row has no place."""
    return take(x_Uxd, source_P)


@jax.custom_vjp
def collect(rows_Pxd: jax.Array, source_P: jax.Array, place_UxK: jax.Array) -> jax.Array:
    """Σ_K rows_Pxd[place_UxK], accumulated in at least float32: the transpose of `spread`."""
    return take(rows_Pxd, place_UxK).astype(accumulation_dtype(rows_Pxd.dtype)).sum(1).astype(rows_Pxd.dtype)


def _spread_bwd(maps, d_rows_Pxd):
    return collect(d_rows_Pxd, *maps), None, None


def _collect_bwd(maps, d_x_Uxd):
    return spread(d_x_Uxd, *maps), None, None


spread.defvjp(lambda x_Uxd, *maps: (spread(x_Uxd, *maps), maps), _spread_bwd)
collect.defvjp(lambda rows_Pxd, *maps: (collect(rows_Pxd, *maps), maps), _collect_bwd)
