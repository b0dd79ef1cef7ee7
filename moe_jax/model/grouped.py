"""The experts on sorted rows, for TPU: products of groups of rows with their expert's matrix, by Pallas megablox.

The kernels cannot be checked by shard_map (check_vma), so they sit alone in unchecked ones, whose inputs and outputs
are all cut over the whole mesh: nothing has to be reduced there. Only tiles that hold rows are multiplied, however long
the buffer of rows is.

    R  rows of a device, sorted by expert, a multiple of the tile's    k, n  d_model, d_expert, or the other way round
    E  experts of a device
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from moe_jax.model.experts import Experts
from moe_jax.model.layers import activate
from moe_jax.sharding import AXES

_LARGEST = 512  # of a tile's sides: operands and sums fit the smallest VMEM twice over


def tile_rows(assignments: int, n_experts: int) -> int:
    """Rows of a tile: as many as an expert gets on average, to a power of two between 128 and 512. Larger ones are
    faster, unless experts have too few rows to fill them (tokamax's pull request 1221: up to 1.6 times as fast with
    256 rows as with 128 on TPU7x; 0.56 times on v5p where experts have 128)."""
    return 2 ** min(max((assignments // n_experts).bit_length() - 1, 7), 9)


def apply(
    mesh: Mesh,
    experts: Experts,
    rows_Rxd: jax.Array,
    weight_R: jax.Array,
    load_E: jax.Array,
    tile: int,
    interpret: bool,
) -> jax.Array:
    """out_Rxd = weight · feed-forward of each row's expert, zeros past the last; arrays are all devices' end to end.

    Expert e of a device has the next load_E[e] rows. `interpret`: on a CPU, slowly, by the same code."""
    product = functools.partial(_product, mesh, tile, interpret)
    h = [product(rows_Rxd, w_Exdxf, load_E) for w_Exdxf in experts.w_in]
    h_Rxf = activate(experts.activation, h[0], h[1] if len(h) > 1 else None)
    weighted_Rxf = (h_Rxf.astype(weight_R.dtype) * weight_R[:, None]).astype(h_Rxf.dtype)
    return product(weighted_Rxf, experts.w_out_Exfxd, load_E)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _product(
    mesh: Mesh, tile: int, interpret: bool, rows_Rxk: jax.Array, w_Exkxn: jax.Array, load_E: jax.Array
) -> jax.Array:
    """out_Rxn: each row times its expert's matrix."""
    return _product_fwd(mesh, tile, interpret, rows_Rxk, w_Exkxn, load_E)[0]


def _product_fwd(mesh, tile, interpret, rows_Rxk, w_Exkxn, load_E):
    def local(rows_Rxk, w_Exkxn, load_E):
        return _gmm(rows_Rxk, w_Exkxn, load_E, tile, False, interpret)

    return _unchecked(local, mesh)(rows_Rxk, w_Exkxn, load_E), (rows_Rxk, w_Exkxn, load_E)


def _product_bwd(mesh, tile, interpret, saved, d_out_Rxn):
    def local(rows_Rxk, w_Exkxn, load_E, d_out_Rxn):
        d_rows_Rxk = _gmm(d_out_Rxn, w_Exkxn, load_E, tile, True, interpret)
        _, k, n = w_Exkxn.shape
        with jax.named_scope("grouped_product"):
            # Experts without rows get zeros from the kernel, and rows past the last belong to none.
            d_w_Exkxn = tgmm(
                rows_Rxk.T, d_out_Rxn, load_E, w_Exkxn.dtype, (tile, _side(k), _side(n)), interpret=interpret
            )
        return d_rows_Rxk, d_w_Exkxn

    d_rows_Rxk, d_w_Exkxn = _unchecked(local, mesh)(*saved, d_out_Rxn)
    return d_rows_Rxk, d_w_Exkxn, None


_product.defvjp(_product_fwd, _product_bwd)


def _gmm(rows_Rxk, w, load_E, tile, transposed, interpret):
    k = rows_Rxk.shape[1]
    n = w.shape[1] if transposed else w.shape[2]
    with jax.named_scope("grouped_product"):
        out_Rxn = gmm(
            rows_Rxk, w, load_E, rows_Rxk.dtype, (tile, _side(k), _side(n)),
            transpose_rhs=transposed, interpret=interpret,
        )  # fmt: skip
    # The kernel does not write rows past the last: what was in memory, maybe NaN.
    filled_R = jnp.arange(len(out_Rxn)) < load_E.sum()
    return jnp.where(filled_R[:, None], out_Rxn, jnp.zeros((), out_Rxn.dtype))


def _side(size: int) -> int:
    """A tile's side along an axis: all of it, or whole vectors of 128; the kernels mask what is left over."""
    return min(size, _LARGEST)


def _unchecked(local, mesh: Mesh):
    """`local` on each device's part of every array."""
    return jax.shard_map(local, mesh=mesh, in_specs=P(AXES), out_specs=P(AXES), check_vma=False)
