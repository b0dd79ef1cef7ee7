"""The MoE layer: route, dispatch, experts, combine, in one shard_map, so that a run means the same on every mesh.

Routing groups are whole sequences (token choice), or so many sequences at one position (expert choice), by the config
alone. Where a device holds too few sequences for whole expert-choice groups, it exchanges sequences for positions
first.

    B  sequences on this device   E  experts on this device     G  routing groups
    S  positions                  f  d_expert                   T  tokens of a group
    d  d_model
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from moe_jax import counts
from moe_jax.config import Config
from moe_jax.model import dispatch, routing
from moe_jax.model.layers import Norm, activate, parameter_dtype, weight
from moe_jax.sharding import AXES, EXPERT, Layout, exchange_axes


class MoeLayer(nnx.Module):
    """In place of the feed-forward. Gives its output and `statistics`, scalars over the whole batch."""

    def __init__(self, config: Config, layout: Layout, key: jax.Array):
        self.config, self.layout = config, layout
        m, moe = config.model, config.moe
        d, f, E = m.d_model, moe.d_expert, moe.n_experts
        keys = jax.random.split(key, 4)
        self.router_dxE = weight(m, keys[0], (d, E), (None, None), d)
        self.w_in_Exdxf = weight(m, keys[1], (E, d, f), ("expert", "embed", None), d)
        # The fan-in that a token sees: k experts of width d_ff / G (krajewski2024's code), so G does not change it.
        self.w_out_Exfxd = weight(m, keys[2], (E, f, d), ("expert", None, "embed"), f * moe.top_k)
        if m.gated:
            self.w_gate_Exdxf = weight(m, keys[3], (E, d, f), ("expert", "embed", None), d)
        if moe.output_norm:
            self.norm = Norm(m)

    def __call__(self, x_BxSxd: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x, y of shape (batch, positions, d); statistics: balance, z, entropy, dropped_fraction,
        max_over_mean_load."""
        experts_spec = P(EXPERT) if self.config.moe.dispatch == "slots" else P()
        weights = [self.w_in_Exdxf[...], self.w_out_Exfxd[...]] + (
            [self.w_gate_Exdxf[...]] if self.config.model.gated else []
        )
        weights = [w.astype(x_BxSxd.dtype) for w in weights]
        layer = jax.shard_map(
            self._local,
            mesh=self.layout.mesh,
            in_specs=(P(AXES), P(), *[experts_spec] * len(weights)),
            out_specs=(P(AXES), P()),
            check_vma=True,
        )
        y_BxSxd, statistics = layer(x_BxSxd, self.router_dxE[...], *weights)
        return (self.norm(y_BxSxd) if self.config.moe.output_norm else y_BxSxd), statistics

    def _local(self, x_BxSxd, router_dxE, w_in_Exdxf, w_out_Exfxd, w_gate_Exdxf=None):
        moe, capacity = self.config.moe, counts.capacity(self.config)
        axes = exchange_axes(self.config, self.layout.mesh, x_BxSxd.shape[0])
        if axes:
            x_BxSxd = jax.lax.all_to_all(x_BxSxd, axes, split_axis=1, concat_axis=0, tiled=True)
        x_GxTxd = self._groups(x_BxSxd)
        wide = parameter_dtype(self.config.model)
        logits_GxTxE = jnp.einsum("GTd,dE->GTE", x_GxTxd.astype(wide), router_dxE, precision="highest")
        routed = routing.route(moe, logits_GxTxE, capacity)

        def experts(rows_ExSxd):
            h_ExSxf = jnp.einsum("ESd,Edf->ESf", rows_ExSxd, w_in_Exdxf)
            gate_ExSxf = None if w_gate_Exdxf is None else jnp.einsum("ESd,Edf->ESf", rows_ExSxd, w_gate_Exdxf)
            return jnp.einsum("ESf,Efd->ESd", activate(self.config.model.activation, h_ExSxf, gate_ExSxf), w_out_Exfxd)

        if moe.dispatch == "slots":
            y_GxTxd = dispatch.slots(x_GxTxd, routed, experts, self.layout.size(EXPERT))
        else:
            y_GxTxd = dispatch.dense(x_GxTxd, routed, experts)
        y_BxSxd = self._ungroup(y_GxTxd, x_BxSxd.shape)
        if axes:
            y_BxSxd = jax.lax.all_to_all(y_BxSxd, axes, split_axis=0, concat_axis=1, tiled=True)
        return y_BxSxd, statistics(routed, x_GxTxd.shape[1], moe.top_k)

    def _groups(self, x_BxSxd: jax.Array) -> jax.Array:
        """Groups of whole sequences, or of sequences at one position."""
        B, S, d = x_BxSxd.shape
        m = self.config.moe.group_sequences
        if self.config.moe.router == "token_choice":
            return x_BxSxd.reshape(B // m, m * S, d)
        return x_BxSxd.reshape(B // m, m, S, d).swapaxes(1, 2).reshape(B // m * S, m, d)

    def _ungroup(self, y_GxTxd: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        B, S, d = shape
        m = self.config.moe.group_sequences
        if self.config.moe.router == "token_choice":
            return y_GxTxd.reshape(B, S, d)
        return y_GxTxd.reshape(B // m, S, m, d).swapaxes(1, 2).reshape(B, S, d)


def statistics(routed: routing.Routing, tokens: int, k: int) -> dict[str, jax.Array]:
    """Scalars over the whole mesh: every one is reduced over all axes here, before it leaves the shard_map."""
    dtype = routed.z_G.dtype
    load_E = jax.lax.psum(routed.load_GxE.sum(0).astype(dtype), AXES)
    local = {
        "balance": routed.balance_G.mean(),
        "z": routed.z_G.mean(),
        "entropy": routed.entropy_G.mean(),
        "dropped_fraction": routed.dropped_G.astype(dtype).mean() / (tokens * k),
    }
    reduced = jax.tree.map(lambda x: jax.lax.pmean(x, AXES), local)
    return reduced | {"max_over_mean_load": load_E.max() / load_E.mean()}
