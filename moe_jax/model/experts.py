"""The feed-forward of the experts, on rows in the experts' order.

E  experts: the layer's, or those of a device or of a chunk    Q  rows of an expert
d  d_model                                                     f  d_expert
F  f, or 2 f where gated: values, then gates
"""

import jax
import jax.numpy as jnp
from flax import struct

from moe_jax.model.layers import activate

# The two products; they also name them in compiled programs, where plan/aot.py finds them.
IN_PRODUCT, OUT_PRODUCT = "EQd,EdF->EQF", "EQf,Efd->EQd"


@struct.dataclass
class Experts:
    """Matrices of experts, in the compute dtype: of the whole layer, or of one device or chunk.

    A row's routing weight multiplies its hidden values, which is the same as multiplying its output: neither pass then
    needs the output again, which for fine-grained experts is d / f times as large."""

    w_in_ExdxF: jax.Array
    w_out_Exfxd: jax.Array
    activation: str = struct.field(pytree_node=False)

    def __call__(self, rows_ExQxd: jax.Array, weight_ExQ: jax.Array) -> jax.Array:
        """weight · feed-forward(rows), of the shape of the rows."""
        return output(self.activation, hidden(rows_ExQxd, self.w_in_ExdxF), weight_ExQ, self.w_out_Exfxd)


def hidden(rows_ExQxd: jax.Array, w_in_ExdxF: jax.Array) -> jax.Array:
    """h_ExQxF before the activation."""
    return jnp.einsum(IN_PRODUCT, rows_ExQxd, w_in_ExdxF)


def output(activation: str, h_ExQxF: jax.Array, weight_ExQ: jax.Array, w_out_Exfxd: jax.Array) -> jax.Array:
    """The rest of the feed-forward, from `hidden`."""
    h_ExQxf = activate(activation, h_ExQxF)
    weighted_ExQxf = (h_ExQxf.astype(weight_ExQ.dtype) * weight_ExQ[..., None]).astype(h_ExQxf.dtype)
    return jnp.einsum(OUT_PRODUCT, weighted_ExQxf, w_out_Exfxd)
