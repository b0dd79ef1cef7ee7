"""The MoE layer: route, dispatch, experts, combine, in one shard_map, so that a run means the same on every mesh (in
three where the experts are TPU kernels, which shard_map cannot check).

Routing groups are whole sequences (token choice), or several sequences at one position (expert choice), by the config
alone. Where a device holds too few sequences for whole expert-choice groups, it exchanges sequences for positions
first.

B  sequences on this device    E  experts (Elocal: this device's)    R  routing groups on this device
S  positions                   f  d_expert                           T  tokens of a group
d  d_model                     P  places: rows in the experts' order
F  f, or 2 f where gated: values, then gates
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from moe_jax.config import counts
from moe_jax.config.schema import Config
from moe_jax.model import dispatch, megablox
from moe_jax.model.experts import Experts
from moe_jax.model.layers import FeedForward, Norm, parameter_dtype, weight
from moe_jax.model.remat import saved
from moe_jax.model.routers import registry
from moe_jax.model.routers.protocol import Choice, Slots, Statistics
from moe_jax.model.routers.slots import fill_slots, pairs_of
from moe_jax.model.sharding import AXES, EXPERT, Layout, exchange_axes


class RouterBias(nnx.Variable):
    """A number for each expert, added to its logits or sigmoid scores where tokens choose (Wang et al. 2024). Loads
    train it, not gradients: see moe_jax/model/expert_load.py."""


class MoeLayer(nnx.Module):
    """The MoE layer in place of the feed-forward: its output, and statistics over the whole batch."""

    def __init__(self, config: Config, layout: Layout, key: jax.Array):
        self.config, self.layout = config, layout
        m, moe = config.model, config.moe
        d, f, E = m.d_model, moe.d_expert, moe.n_experts
        keys = jax.random.split(key, 3)
        self.router_dxE = weight(m, keys[0], (d, E), (None, None), d, readout=True)
        self.shows_choices = False  # True: `statistics` also have `choices`; only moe_jax.evaluation sets it
        self._router, self._capacity = registry.load(moe.router), counts.capacity(config)
        if moe.router not in registry.ROUTERS:
            registry.check(self._router, config, self._capacity, parameter_dtype(m))
        if moe.bias_update_rate:
            self.bias_E = RouterBias(jnp.zeros(E, parameter_dtype(m)), logical_axes=(None,))
        F = 2 * f if m.gated else f
        self.w_in_ExdxF = weight(m, keys[1], (E, d, F), ("expert", "embed", None), d)
        # The fan-in that a token sees: k experts of width d_ff / G (krajewski2024's code), so G does not change it.
        self.w_out_Exfxd = weight(m, keys[2], (E, f, d), ("expert", None, "embed"), f * moe.top_k)
        if moe.shared_experts:  # side by side they are one feed-forward
            self.shared = FeedForward(
                dataclasses.replace(m, d_ff=f * moe.shared_experts, ff_bias=False), layout, jax.random.fold_in(key, 1)
            )
        if moe.shared_gate:
            self.shared_gate_d = weight(m, jax.random.fold_in(key, 2), (d,), (None,), d)
        if moe.output_norm:
            self.norm = Norm(m)

    def __call__(self, x_BxSxd: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(y_BxSxd, statistics). Statistics are balance, z, entropy, dropped_fraction, and load_E, the assignments that
        each expert was asked to take; with shows_choices also those of `choices`."""
        experts = Experts(
            w_in_ExdxF=self.w_in_ExdxF[...].astype(x_BxSxd.dtype),
            w_out_Exfxd=self.w_out_Exfxd[...].astype(x_BxSxd.dtype),
            activation=self.config.model.activation,
        )
        bias_E = self.bias_E[...] if self.config.moe.bias_update_rate else None
        if self.config.moe.dispatch == "dropless" and has_kernels(self.layout.mesh):
            y_BxSxd, statistics = self._with_kernels(x_BxSxd, bias_E, experts)
        else:
            y_BxSxd, statistics = self._in_one(x_BxSxd, bias_E, experts)
        if self.shows_choices:
            statistics = statistics | self.choices(x_BxSxd)
        if self.config.moe.shared_experts:
            y_BxSxd = y_BxSxd + self._shared(x_BxSxd)
        return (self.norm(saved(y_BxSxd)) if self.config.moe.output_norm else y_BxSxd), statistics

    def _shared(self, x_BxSxd: jax.Array) -> jax.Array:
        """The shared experts' output, times sigmoid(x · w) with moe.shared_gate (Qwen2-MoE, 2407.10671)."""
        y_BxSxd = self.shared(x_BxSxd)
        if not self.config.moe.shared_gate:
            return y_BxSxd
        w_d = self.shared_gate_d[...]
        gate_BxS = jax.nn.sigmoid(jnp.einsum("BSd,d->BS", x_BxSxd.astype(w_d.dtype), w_d, precision="highest"))
        return y_BxSxd * gate_BxS.astype(y_BxSxd.dtype)[..., None]

    def choices(self, x_BxSxd: jax.Array) -> dict[str, jax.Array]:
        """chosen_BxSxE, whether an expert and a token go together before any is dropped, and entropy_BxS of the
        router's distribution, nats: the mean of each token's routing group."""

        def local(x_BxSxd, router_dxE, bias_E):
            axes = exchange_axes(self.config, self.layout.mesh, x_BxSxd.shape[0])
            if axes:
                x_BxSxd = jax.lax.all_to_all(x_BxSxd, axes, split_axis=1, concat_axis=0, tiled=True)
            x_RxTxd = self._groups(x_BxSxd)
            routed, statistics = self._route(x_RxTxd, router_dxE, bias_E)
            entropy_RxTx1 = jnp.broadcast_to(statistics.entropy_R[:, None, None], (*x_RxTxd.shape[:2], 1))
            found = pairs_of(routed, x_RxTxd.shape[1], self.config.moe.n_experts), entropy_RxTx1
            found = tuple(self._ungroup(a_RxTxn, (*x_BxSxd.shape[:2], a_RxTxn.shape[-1])) for a_RxTxn in found)
            if axes:
                found = tuple(
                    jax.lax.all_to_all(a_BxSxn, axes, split_axis=0, concat_axis=1, tiled=True) for a_BxSxn in found
                )
            return {"chosen_BxSxE": found[0], "entropy_BxS": found[1][..., 0]}

        return jax.shard_map(
            local,
            mesh=self.layout.mesh,
            in_specs=(P(AXES), P(), P()),
            out_specs=P(AXES),
            check_vma=self.layout.check_vma,
        )(x_BxSxd, self.router_dxE[...], self.bias_E[...] if self.config.moe.bias_update_rate else None)

    def _in_one(self, x_BxSxd, bias_E, experts):
        """The whole layer in one shard_map."""
        trivial = self.layout.trivial_axes
        cut = trivial if self.config.moe.dispatch == "dense" else tuple(a for a in AXES if a in trivial or a == EXPERT)
        layer = jax.shard_map(
            functools.partial(self._local, cut),
            mesh=self.layout.mesh,
            in_specs=(P(AXES), P(trivial), P(trivial), P(cut)),
            out_specs=(P(AXES), P()),
            check_vma=self.layout.check_vma,
        )
        return layer(x_BxSxd, self.router_dxE[...], bias_E, experts)

    def _with_kernels(self, x_BxSxd, bias_E, experts):
        """Dropless on TPU: the kernels, unchecked, between a checked dispatch and a checked combine."""
        moe, mesh, expert_parallel = self.config.moe, self.layout.mesh, self.layout.size(EXPERT)
        B, S, _ = x_BxSxd.shape
        row_tokens = B * S * expert_parallel // self.layout.batch_parts  # tokens of the devices along `expert`
        tile = megablox.tile_rows(row_tokens * moe.top_k, moe.n_experts)

        def dispatched(x_BxSxd, router_dxE, bias_E, experts):
            x_RxTxd = self._groups(x_BxSxd)
            choice, statistics = self._route(x_RxTxd, router_dxE, bias_E)
            rows = dispatch.sorted_rows(x_RxTxd, choice, len(experts.w_out_Exfxd), expert_parallel, tile)
            return *rows, _varying_experts(experts, (EXPERT,)), _over_mesh(statistics, x_RxTxd.shape[1], moe.top_k)

        def combined(out_Pxd, maps, x_BxSxd):
            shape = self._groups(x_BxSxd).shape
            return self._ungroup(dispatch.combined_rows(out_Pxd, maps, shape, expert_parallel), x_BxSxd.shape)

        shard_map = functools.partial(jax.shard_map, mesh=mesh, check_vma=True)
        rows_Pxd, weight_P, load_Elocal, maps, experts, statistics = shard_map(
            dispatched, in_specs=(P(AXES), P(), P(), P(EXPERT)), out_specs=(*[P(AXES)] * 5, P())
        )(x_BxSxd, self.router_dxE[...], bias_E, experts)
        interpret = mesh.devices.flat[0].platform != "tpu"
        out_Pxd = megablox.grouped_experts(mesh, experts, rows_Pxd, weight_P, load_Elocal, tile, interpret)
        y_BxSxd = shard_map(combined, in_specs=P(AXES), out_specs=P(AXES))(out_Pxd, maps, x_BxSxd)
        return y_BxSxd, statistics

    def _local(self, cut, x_BxSxd, router_dxE, bias_E, experts):
        moe = self.config.moe
        axes = exchange_axes(self.config, self.layout.mesh, x_BxSxd.shape[0])
        if axes:
            x_BxSxd = saved(jax.lax.all_to_all(x_BxSxd, axes, split_axis=1, concat_axis=0, tiled=True))
        x_RxTxd = self._groups(x_BxSxd)
        routed, statistics = self._route(x_RxTxd, router_dxE, bias_E)
        experts = _varying_experts(experts, cut)
        expert_parallel = self.layout.size(EXPERT)
        on_cpu = self.layout.mesh.devices.flat[0].platform == "cpu"
        if moe.dispatch == "dropless":
            y_RxTxd = dispatch.dropless(x_RxTxd, routed, experts, expert_parallel, on_cpu)
        else:
            slots = routed
            if isinstance(routed, Choice):
                slots, statistics = fill_slots(routed, statistics, self._capacity, moe.batch_prioritised)
            if moe.dispatch == "slots":
                y_RxTxd = dispatch.slots(x_RxTxd, slots, experts, expert_parallel, stream=on_cpu)
            else:
                y_RxTxd = dispatch.dense(x_RxTxd, slots, experts)
        y_BxSxd = self._ungroup(y_RxTxd, x_BxSxd.shape)
        if axes:
            y_BxSxd = jax.lax.all_to_all(y_BxSxd, axes, split_axis=0, concat_axis=1, tiled=True)
        return y_BxSxd, _over_mesh(statistics, x_RxTxd.shape[1], moe.top_k)

    def _route(self, x_RxTxd, router_dxE, bias_E) -> tuple[Choice | Slots, Statistics]:
        x_RxTxd = x_RxTxd.astype(parameter_dtype(self.config.model))
        logits_RxTxE = jnp.einsum("RTd,dE->RTE", x_RxTxd, router_dxE, precision="highest")
        routed = self._router(logits_RxTxE, self.config.moe, self._capacity, bias_E)
        if self.config.moe.router in registry.ROUTERS:
            return routed
        # A user's router may give constants. Adding zeros of x makes them vary over the mesh, as x does.
        return jax.tree.map(lambda a: a + jnp.zeros_like(x_RxTxd, shape=(), dtype=a.dtype), routed)

    def _groups(self, x_BxSxd: jax.Array) -> jax.Array:
        """Groups of whole sequences, or of sequences at one position."""
        B, S, d = x_BxSxd.shape
        m = self.config.moe.group_sequences
        if self.config.moe.router != "expert_choice":
            return x_BxSxd.reshape(B // m, m * S, d)
        return x_BxSxd.reshape(B // m, m, S, d).swapaxes(1, 2).reshape(B // m * S, m, d)

    def _ungroup(self, y_RxTxd: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
        B, S, d = shape
        m = self.config.moe.group_sequences
        if self.config.moe.router != "expert_choice":
            return y_RxTxd.reshape(B, S, d)
        return y_RxTxd.reshape(B // m, S, m, d).swapaxes(1, 2).reshape(B, S, d)


def has_kernels(mesh: Mesh) -> bool:
    """Whether the devices of the mesh run the kernels of model/megablox.py."""
    return mesh.devices.flat[0].platform == "tpu"


def _varying_experts(experts: Experts, cut: tuple[str, ...]) -> Experts:
    """Experts that are cut over these axes, marked as varying over the others too, where they are the same: their
    gradients do vary, and the backward pass adds these up."""
    same = tuple(axis for axis in AXES if axis not in cut)
    return jax.tree.map(lambda w: jax.lax.pcast(w, same, to="varying"), experts)


def _over_mesh(statistics: Statistics, tokens: int, k: int) -> dict[str, jax.Array]:
    """Statistics of the whole batch: all are reduced over all mesh axes, before they leave the shard_map."""
    local = {
        "balance": statistics.balance_R.mean(),
        "z": statistics.z_R.mean(),
        "entropy": statistics.entropy_R.mean(),
        "dropped_fraction": statistics.dropped_R.astype(statistics.z_R.dtype).mean() / (tokens * k),
    }
    reduced = jax.tree.map(lambda x: jax.lax.pmean(x, AXES), local)
    return reduced | {"load_E": jax.lax.psum(statistics.load_RxE.sum(0), AXES)}
