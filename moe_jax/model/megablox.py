"""The experts on sorted rows, for TPU: each group of rows times its expert's matrix, by Pallas megablox.

The kernels cannot be checked by shard_map (check_vma), so they sit alone in unchecked ones, whose inputs and outputs
are all cut over the whole mesh: nothing has to be reduced there. Only tiles that hold rows are multiplied, however long
the buffer of rows is.

P  rows of a device in the experts' order, a multiple of the tile's    Elocal  experts that a device holds
d  d_model    f  d_expert    i, o  input and output width of a product: d and f (2 f where gated), or f and d
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from moe_jax.model.experts import Experts
from moe_jax.model.layers import activate
from moe_jax.model.sharding import AXES

PRODUCT = "grouped_product"  # names the products in compiled programs, as those of experts.py
_LARGEST = 512  # of a tile's sides: operands and sums fit the smallest VMEM twice over


def tile_rows(assignments: int, n_experts: int) -> int:
    """Rows of a tile: as many as an expert gets on average, to a power of two between 128 and 512. Larger ones are
    faster, unless experts have too few rows to fill them (tokamax's pull request 1221: up to 1.6 times as fast with
    256 rows as with 128 on TPU7x; 0.56 times on v5p where experts have 128)."""
    return 2 ** min(max((assignments // n_experts).bit_length() - 1, 7), 9)


def grouped_experts(
    mesh: Mesh,
    experts: Experts,
    rows_Pxd: jax.Array,
    weight_P: jax.Array,
    load_Elocal: jax.Array,
    tile: int,
    interpret: bool,
) -> jax.Array:
    """out_Pxd: each row's weight times the feed-forward of its expert; zeros past the last row.

    Arrays hold the parts of all devices end to end. Expert e of a device has the next load_Elocal[e] of its rows.
    `interpret` runs the same code on a CPU, slowly."""
    product = functools.partial(_product, mesh, tile, interpret)
    h_Pxf = activate(experts.activation, product(rows_Pxd, experts.w_in_ExdxF, load_Elocal))
    weighted_Pxf = (h_Pxf.astype(weight_P.dtype) * weight_P[:, None]).astype(h_Pxf.dtype)
    return product(weighted_Pxf, experts.w_out_Exfxd, load_Elocal)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _product(
    mesh: Mesh, tile: int, interpret: bool, rows_Pxi: jax.Array, w_Elocalxixo: jax.Array, load_Elocal: jax.Array
) -> jax.Array:
    """out_Pxo: each row times its expert's matrix."""
    return _product_fwd(mesh, tile, interpret, rows_Pxi, w_Elocalxixo, load_Elocal)[0]


def _product_fwd(mesh, tile, interpret, rows_Pxi, w_Elocalxixo, load_Elocal):
    def local(rows_Pxi, w_Elocalxixo, load_Elocal):
        return _gmm(rows_Pxi, w_Elocalxixo, load_Elocal, tile, False, interpret)

    return _unchecked(local, mesh)(rows_Pxi, w_Elocalxixo, load_Elocal), (rows_Pxi, w_Elocalxixo, load_Elocal)


def _product_bwd(mesh, tile, interpret, saved, d_out_Pxo):
    def local(rows_Pxi, w_Elocalxixo, load_Elocal, d_out_Pxo):
        d_rows_Pxi = _gmm(d_out_Pxo, w_Elocalxixo, load_Elocal, tile, True, interpret)
        _, i, o = w_Elocalxixo.shape
        with _kernels() as (_, tgmm):
            # Experts without rows get zeros from the kernel, and rows past the last belong to none.
            d_w_Elocalxixo = tgmm(
                rows_Pxi.T, d_out_Pxo, load_Elocal, w_Elocalxixo.dtype, (tile, _side(i), _side(o)), interpret=interpret
            )
        return d_rows_Pxi, d_w_Elocalxixo

    d_rows_Pxi, d_w_Elocalxixo = _unchecked(local, mesh)(*saved, d_out_Pxo)
    return d_rows_Pxi, d_w_Elocalxixo, None


_product.defvjp(_product_fwd, _product_bwd)


def _gmm(rows_Pxi, w, load_Elocal, tile, transposed, interpret):
    i = rows_Pxi.shape[1]
    o = w.shape[1] if transposed else w.shape[2]
    with _kernels() as (gmm, _):
        out_Pxo = gmm(
            rows_Pxi, w, load_Elocal, rows_Pxi.dtype, (tile, _side(i), _side(o)),
            transpose_rhs=transposed, interpret=interpret,
        )  # fmt: skip
    # The kernel does not write rows past the last: they hold what was in memory, maybe NaN.
    filled_P = jnp.arange(len(out_Pxo)) < load_Elocal.sum()
    return jnp.where(filled_P[:, None], out_Pxo, jnp.zeros((), out_Pxo.dtype))


@contextlib.contextmanager
def _kernels():
    """JAX's kernels, for the calls within: they promote dtypes implicitly, which tests forbid to our own code."""
    # Here, because it takes a third of a second and trainings on a CPU never need it.
    from jax.experimental.pallas.ops.tpu.megablox.gmm import gmm, tgmm

    with jax.named_scope(PRODUCT), jax.numpy_dtype_promotion("standard"):
        yield gmm, tgmm


def _side(size: int) -> int:
    """A tile's side along an axis: all of it, or whole vectors of 128; the kernels mask what is left over."""
    return min(size, _LARGEST)


def _unchecked(local, mesh: Mesh):
    """`local` on each device's part of every array."""
    return jax.shard_map(local, mesh=mesh, in_specs=P(AXES), out_specs=P(AXES), check_vma=False)
