"""The MoE layer: route, dispatch, experts, combine, in one shard_map, so that a run means the same on every mesh (in
three where the experts are TPU kernels, which shard_map cannot check).

Routing groups are whole sequences (token choice), or so many sequences at one position (expert choice), by the config
alone. Where a device holds too few sequences for whole expert-choice groups, it exchanges sequences for positions
first.

    B  sequences on this device   E  experts on this device     G  routing groups
    S  positions                  f  d_expert                   T  tokens of a group
    d  d_model
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from moe_jax import counts
from moe_jax.config import Config
from moe_jax.model import dispatch, grouped, routing
from moe_jax.model.experts import Experts
from moe_jax.model.layers import FeedForward, Norm, parameter_dtype, weight
from moe_jax.model.remat import keep
from moe_jax.sharding import AXES, EXPERT, Layout, exchange_axes


class RouterBias(nnx.Variable):
    """Of each expert, added to its logits where tokens choose (Wang et al. 2024). Trained by loads, not by gradients:
    see moe_jax/model/load.py."""


class MoeLayer(nnx.Module):
    """In place of the feed-forward. Gives its output and `statistics` over the whole batch."""

    def __init__(self, config: Config, layout: Layout, key: jax.Array):
        self.config, self.layout = config, layout
        m, moe = config.model, config.moe
        d, f, E = m.d_model, moe.d_expert, moe.n_experts
        keys = jax.random.split(key, 4)
        self.router_dxE = weight(m, keys[0], (d, E), (None, None), d)
        if moe.bias_update_rate:
            self.bias_E = RouterBias(jnp.zeros(E, parameter_dtype(m)), logical_axes=(None,))
        self.w_in_Exdxf = weight(m, keys[1], (E, d, f), ("expert", "embed", None), d)
        # The fan-in that a token sees: k experts of width d_ff / G (krajewski2024's code), so G does not change it.
        self.w_out_Exfxd = weight(m, keys[2], (E, f, d), ("expert", None, "embed"), f * moe.top_k)
        if m.gated:
            self.w_gate_Exdxf = weight(m, keys[3], (E, d, f), ("expert", "embed", None), d)
        if moe.shared_experts:  # side by side they are one feed-forward
            self.shared = FeedForward(
                dataclasses.replace(m, d_ff=f * moe.shared_experts, ff_bias=False), layout, jax.random.fold_in(key, 1)
            )
        if moe.output_norm:
            self.norm = Norm(m)

    def __call__(self, x_BxSxd: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """x, y of shape (batch, positions, d); statistics: balance, z, entropy, dropped_fraction, and load_E: how many
        assignments each expert was asked to take."""
        w_in = [self.w_in_Exdxf] + ([self.w_gate_Exdxf] if self.config.model.gated else [])
        experts = Experts(
            w_in=tuple(w[...].astype(x_BxSxd.dtype) for w in w_in),
            w_out_Exfxd=self.w_out_Exfxd[...].astype(x_BxSxd.dtype),
            activation=self.config.model.activation,
        )
        bias_E = self.bias_E[...] if self.config.moe.bias_update_rate else None
        if self.config.moe.dispatch == "dropless" and has_kernels(self.layout.mesh):
            y_BxSxd, statistics = self._grouped(x_BxSxd, bias_E, experts)
        else:
            y_BxSxd, statistics = self._in_one(x_BxSxd, bias_E, experts)
        if self.config.moe.shared_experts:
            y_BxSxd = y_BxSxd + self.shared(x_BxSxd)
        return (self.norm(keep(y_BxSxd)) if self.config.moe.output_norm else y_BxSxd), statistics

    def _in_one(self, x_BxSxd, bias_E, experts):
        """All of the layer in one shard_map."""
        cut = () if self.config.moe.dispatch == "dense" else (EXPERT,)
        layer = jax.shard_map(
            functools.partial(self._local, cut),
            mesh=self.layout.mesh,
            in_specs=(P(AXES), P(), P(), P(cut)),
            out_specs=(P(AXES), P()),
            check_vma=self.layout.check_vma,
        )
        return layer(x_BxSxd, self.router_dxE[...], bias_E, experts)

    def _grouped(self, x_BxSxd, bias_E, experts):
        """Dropless on TPU: the kernels, unchecked, between a checked dispatch and a checked combine."""
        moe, mesh, expert_parallel = self.config.moe, self.layout.mesh, self.layout.size(EXPERT)
        B, S, _ = x_BxSxd.shape
        row_tokens = B * S * expert_parallel // self.layout.batch_parts  # of the devices along `expert`
        tile = grouped.tile_rows(row_tokens * moe.top_k, moe.n_experts)

        def dispatched(x_BxSxd, router_dxE, bias_E, experts):
            x_GxTxd = self._groups(x_BxSxd)
            choice, seen = routing.token_choice(self._logits(x_GxTxd, router_dxE), moe.top_k, moe.softmax, bias_E)
            rows = dispatch.sorted_rows(x_GxTxd, choice, len(experts.w_out_Exfxd), expert_parallel, tile)
            return *rows, _of_each_device(experts, (EXPERT,)), reduce(seen, x_GxTxd.shape[1], moe.top_k)

        def combined(out_Rxd, maps, x_BxSxd):
            shape = self._groups(x_BxSxd).shape
            return self._ungroup(dispatch.combined_rows(out_Rxd, maps, shape, expert_parallel), x_BxSxd.shape)

        shard_map = functools.partial(jax.shard_map, mesh=mesh, check_vma=True)
        rows_Rxd, weight_R, load_E, maps, experts, statistics = shard_map(
            dispatched, in_specs=(P(AXES), P(), P(), P(EXPERT)), out_specs=(*[P(AXES)] * 5, P())
        )(x_BxSxd, self.router_dxE[...], bias_E, experts)
        interpret = mesh.devices.flat[0].platform != "tpu"
        out_Rxd = grouped.apply(mesh, experts, rows_Rxd, weight_R, load_E, tile, interpret)
        y_BxSxd = shard_map(combined, in_specs=P(AXES), out_specs=P(AXES))(out_Rxd, maps, x_BxSxd)
        return y_BxSxd, statistics

    def _local(self, cut, x_BxSxd, router_dxE, bias_E, experts):
        moe, capacity = self.config.moe, counts.capacity(self.config)
        axes = exchange_axes(self.config, self.layout.mesh, x_BxSxd.shape[0])
        if axes:
            x_BxSxd = keep(jax.lax.all_to_all(x_BxSxd, axes, split_axis=1, concat_axis=0, tiled=True))
        x_GxTxd = self._groups(x_BxSxd)
        logits_GxTxE = self._logits(x_GxTxd, router_dxE)
        experts = _of_each_device(experts, cut)
        expert_parallel = self.layout.size(EXPERT)
        on_cpu = self.layout.mesh.devices.flat[0].platform == "cpu"
        if moe.dispatch == "dropless":
            choice, seen = routing.token_choice(logits_GxTxE, moe.top_k, moe.softmax, bias_E)
            y_GxTxd = dispatch.dropless(x_GxTxd, choice, experts, expert_parallel, on_cpu)
        else:
            slots, seen = routing.route(moe, logits_GxTxE, capacity, bias_E)
            if moe.dispatch == "slots":
                y_GxTxd = dispatch.slots(x_GxTxd, slots, experts, expert_parallel, stream=on_cpu)
            else:
                y_GxTxd = dispatch.dense(x_GxTxd, slots, experts)
        y_BxSxd = self._ungroup(y_GxTxd, x_BxSxd.shape)
        if axes:
            y_BxSxd = jax.lax.all_to_all(y_BxSxd, axes, split_axis=0, concat_axis=1, tiled=True)
        return y_BxSxd, reduce(seen, x_GxTxd.shape[1], moe.top_k)

    def _logits(self, x_GxTxd: jax.Array, router_dxE: jax.Array) -> jax.Array:
        wide = parameter_dtype(self.config.model)
        return jnp.einsum("GTd,dE->GTE", x_GxTxd.astype(wide), router_dxE, precision="highest")

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


def has_kernels(mesh: Mesh) -> bool:
    """Whether the mesh's devices run model/grouped.py's kernels."""
    return mesh.devices.flat[0].platform == "tpu"


def _of_each_device(experts: Experts, cut: tuple[str, ...]) -> Experts:
    """Experts that are cut over these axes and the same over the others, seen as differing from device to device, as
    their gradients do; the backward pass of this adds those up."""
    same = tuple(axis for axis in AXES if axis not in cut)
    return jax.tree.map(lambda w: jax.lax.pcast(w, same, to="varying"), experts)


def reduce(seen: routing.Statistics, tokens: int, k: int) -> dict[str, jax.Array]:
    """Over the whole mesh: everything is reduced over all axes here, before it leaves the shard_map."""
    local = {
        "balance": seen.balance_G.mean(),
        "z": seen.z_G.mean(),
        "entropy": seen.entropy_G.mean(),
        "dropped_fraction": seen.dropped_G.astype(seen.z_G.dtype).mean() / (tokens * k),
    }
    reduced = jax.tree.map(lambda x: jax.lax.pmean(x, AXES), local)
    return reduced | {"load_E": jax.lax.psum(seen.load_GxE.sum(0), AXES)}
