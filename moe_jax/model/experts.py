"""The experts' feed-forward on rows that lie expert by expert.

E  experts      S  rows of an expert
d  d_model      f  d_expert
"""

import jax
import jax.numpy as jnp
from flax import struct

from moe_jax.model.layers import activate


@struct.dataclass
class Experts:
    """Their matrices, in the compute dtype; all of the layer's, or those of one device or chunk.

    A row's routing weight multiplies its hidden values, which is the same as multiplying its output: neither pass then
    needs the output again, which for fine-grained experts is d / f times as large."""

    w_in: tuple[jax.Array, ...]  # w_in_Exdxf, and w_gate_Exdxf where gated
    w_out_Exfxd: jax.Array
    activation: str = struct.field(pytree_node=False)

    def __call__(self, rows_ExSxd: jax.Array, weight_ExS: jax.Array) -> jax.Array:
        """weight · feed-forward(rows), of the shape of the rows."""
        return output(self.activation, hidden(rows_ExSxd, self.w_in), weight_ExS, self.w_out_Exfxd)


def hidden(rows_ExSxd: jax.Array, w_in: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    """h_ExSxf before the activation, and gate_ExSxf where gated."""
    return tuple(jnp.einsum("ESd,Edf->ESf", rows_ExSxd, w_Exdxf) for w_Exdxf in w_in)


def output(activation: str, hidden: tuple[jax.Array, ...], weight_ExS: jax.Array, w_out_Exfxd: jax.Array) -> jax.Array:
    """The rest of the feed-forward, from `hidden`."""
    h_ExSxf = activate(activation, hidden[0], hidden[1] if len(hidden) > 1 else None)
    weighted_ExSxf = (h_ExSxf.astype(weight_ExS.dtype) * weight_ExS[..., None]).astype(h_ExSxf.dtype)
    return jnp.einsum("ESf,Efd->ESd", weighted_ExSxf, w_out_Exfxd)
