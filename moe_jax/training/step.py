"""The train step and the evaluation, pure functions over TrainState, compiled once for a shape.

What differs between runs of one shape (D, learning rate, seed) enters as a value. Every leaf of the state has an
explicit sharding, in init's and in the step's outputs: else the step would compile twice, and restored states would
differ.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx, struct
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from moe_jax.config.schema import Config
from moe_jax.data.batches import Batches
from moe_jax.model import expert_load
from moe_jax.model.matrices import matrices_of
from moe_jax.model.moe import RouterBias
from moe_jax.model.sharding import AXES, Layout, format_table
from moe_jax.model.transformer import Transformer
from moe_jax.training import optimizer, skip_step
from moe_jax.training.put import put_windows

AVERAGED = ("loss", "dropped_fraction")  # what the state averages over the last train.loss_average_steps steps


@struct.dataclass
class TrainState:
    """All that a checkpoint holds; with (config, store) it determines everything that follows."""

    step: jax.Array  # updates done
    params: dict[str, Any]
    opt_state: Any
    recent_WxM: jax.Array  # ring buffer of the last W steps' AVERAGED
    skip_step: skip_step.SkipStep | None  # None where config.skip_step skips nothing
    router: dict[str, Any]  # biases of routers that balance themselves (moe.bias_update_rate); {} where there are none

    @property
    def weights(self) -> dict[str, Any]:
        """All that the model computes with: `params` and what is not for the optimizer."""
        return _merged(self.params, self.router)


class Trainer:
    """The compiled functions of one shape on one mesh. `end_of_document` as in Transformer."""

    def __init__(self, config: Config, vocab_size: int, layout: Layout, end_of_document: int | None = None):
        self.config, self.layout = config, layout

        def model_of(config: Config, key) -> Transformer:
            return Transformer(config, vocab_size, layout, key, end_of_document)

        # The graph and the logical axes come from an abstract model: nothing is allocated here.
        self._abstract_model = functools.cache(functools.partial(_abstract_model, config, model_of))
        _, abstract = self._abstract_model(None)
        self._template = abstract
        self._axes = {path: _logical_axes(path, leaf) for path, leaf in nnx.to_flat_state(abstract)}
        gated = config.model.gated
        self._matrices = {path: matrices_of(path, leaf.shape, gated) for path, leaf in nnx.to_flat_state(abstract)}
        whole = {path: layout.whole_matrices(self._axes[path], m) for path, m in self._matrices.items()}
        self._optimizer = optimizer.transformation(config.optim, self._matrices, whole)

        def init(key) -> TrainState:
            params, router = map(nnx.to_pure_dict, nnx.state(model_of(config, key), nnx.Param, RouterBias))
            recent = jnp.zeros((config.train.loss_average_steps, len(AVERAGED)), jnp.float32)
            return TrainState(
                jnp.int32(0), params, self._optimizer.init(params), recent, skip_step.init(config.skip_step), router
            )

        key = jax.eval_shape(lambda: jax.random.key(0))
        self.abstract_state, self.shardings = self._place(jax.eval_shape(init, key))
        # XLA:CPU spends seconds optimising what runs once, for milliseconds.
        on_cpu = layout.mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 0} if on_cpu else None
        self._init = jax.jit(init, out_shardings=self.shardings, compiler_options=options)
        whole = NamedSharding(layout.mesh, P())
        self.batch_sharding = NamedSharding(layout.mesh, P(None, AXES, None))
        self.step = jax.jit(
            self.update,
            in_shardings=(self.shardings, self.batch_sharding, whole),
            out_shardings=(self.shardings, whole),
            donate_argnums=0,
        )
        self.evaluate_sharding = NamedSharding(layout.mesh, P(AXES, None))
        self.evaluate = jax.jit(
            self._evaluate,
            static_argnums=0,
            in_shardings=(self.shardings.weights, self.evaluate_sharding),
            out_shardings=whole,
        )

    def init(self, seed: int) -> TrainState:
        """The state before step 0; the same values on every mesh."""
        return self._init(jax.random.key(seed))

    def _place(self, state: TrainState) -> tuple[TrainState, TrainState]:
        """(abstract state with shardings, its shardings). An optimizer's moments are sharded as their parameters are;
        where they have other axes than these, as the axes that count a parameter's matrices."""
        whole = NamedSharding(self.layout.mesh, P())

        def sharding(path, leaf):
            names = tuple(k.key for k in path if isinstance(k, jax.tree_util.DictKey))
            if names not in self._axes:
                return whole
            axes, matrices = self._axes[names], self._matrices[names]
            if leaf.shape != matrices.shape:
                axes = (*axes[: matrices.counted], *[None] * (leaf.ndim - matrices.counted))
            return self.layout.sharding(*axes, shape=leaf.shape)

        shardings = jax.tree_util.tree_map_with_path(sharding, state)
        abstract = jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), state, shardings)
        return abstract, shardings

    def model(self, weights: dict[str, Any], dispatch: str | None = None) -> Transformer:
        """The model with these weights (TrainState.weights); with a `dispatch`, that instead of moe.dispatch."""
        graph, abstract = self._abstract_model(dispatch)
        state = jax.tree.map(lambda v: v, abstract)
        nnx.replace_by_pure_dict(state, weights)
        return nnx.merge(graph, state)

    def loss(
        self, params: dict[str, Any], windows_BxS1: jax.Array, router: dict[str, Any] | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(what is minimised, statistics of every layer, and `loss`: nats per token)."""
        loss, statistics = self.model(_merged(params, router or {})).loss(windows_BxS1)
        moe = self.config.moe
        total = loss
        if moe is not None:
            total = (
                loss
                + moe.load_balance_loss_weight * statistics["balance"].mean()
                + moe.router_z_loss_weight * statistics["z"].mean()
            )
        return total, statistics | {"loss": loss}

    def gradients(
        self, params: dict[str, Any], windows_MxBxS1: jax.Array, router: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, jax.Array]]:
        """(gradient, statistics) of M microbatches, one after the other: means, and sums of what counts."""
        gradient = functools.partial(jax.grad(self.loss, has_aux=True), router=router)
        M = windows_MxBxS1.shape[0]
        if M == 1:
            return gradient(params, windows_MxBxS1[0])

        def add(total, windows_BxS1):
            return jax.tree.map(jnp.add, total, gradient(params, windows_BxS1)), None

        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(gradient, params, windows_MxBxS1[0]))
        total, _ = jax.lax.scan(add, zeros, windows_MxBxS1)
        return jax.tree.map(lambda t: t / M if jnp.issubdtype(t.dtype, jnp.inexact) else t, total)

    def update(
        self, state: TrainState, windows_MxBxS1: jax.Array, schedule: optimizer.Schedule
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """(the state after one more update, its metrics): the pure function that `step` compiles."""
        gradient, statistics = self.gradients(state.params, windows_MxBxS1, state.router)
        norm = optax.tree.norm(gradient)
        gradient = optimizer.clipped(self.config.optim, gradient, norm)
        direction, opt_state = optimizer.direction(self._optimizer, gradient, state.opt_state, state.params)
        rate = optimizer.learning_rate(self.config.optim, schedule, state.step)
        params = optimizer.apply_update(self.config.optim, state.params, direction, rate, schedule.learning_rate)
        loss = statistics.pop("loss")
        router = state.router
        if router:
            router = expert_load.rebalanced(router, statistics["load_E"], self.config.moe.bias_update_rate)
        metrics = {"loss": loss} | expert_load.logged(statistics, self.config.train.log_layers)
        metrics |= {"learning_rate": rate, "gradient_norm": norm}
        seen = jnp.stack([metrics.get(name, jnp.float32(0)).astype(jnp.float32) for name in AVERAGED])
        recent_WxM = state.recent_WxM.at[state.step % self.config.train.loss_average_steps].set(seen)
        watch = state.skip_step
        if watch is not None:
            skip, watch = skip_step.judge(self.config.skip_step, watch, metrics["gradient_norm"], state.step)
            before, after = (state.params, state.opt_state, state.router), (params, opt_state, router)
            params, opt_state, router = skip_step.select(skip, before, after)
            metrics["skipped"] = watch.skipped
        return TrainState(state.step + 1, params, opt_state, recent_WxM, watch, router), metrics

    def _evaluate(
        self, dispatch: str | None, weights: dict[str, Any], windows_BxS1: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """(loss_B, nats summed over each window's targets; the share of assignments that were dropped). Compiled apart
        for each `dispatch`."""
        loss_BxS, statistics = self.model(weights, dispatch).losses(windows_BxS1)
        dropped = statistics["dropped_fraction"].mean() if statistics else jnp.zeros((), loss_BxS.dtype)
        return loss_BxS.sum(-1), dropped

    @property
    def batch_shape(self) -> tuple[int, int, int]:
        """(M, B, S + 1) of a step: M microbatches of B windows of S + 1 tokens."""
        train = self.config.train
        return train.microbatches, train.batch_sequences // train.microbatches, self.config.data.sequence_length + 1

    def read(self, batches: Batches, step: int, rows_R: np.ndarray) -> np.ndarray:
        """windows_MxRx(S+1) of a step: these rows of every microbatch."""
        M, B, _ = self.batch_shape
        return batches.batch(step, (np.arange(M)[:, None] * B + rows_R).reshape(-1)).reshape(M, len(rows_R), -1)

    def put(self, batches: Batches, step: int) -> jax.Array:
        """windows_MxBx(S+1) of a step on the devices, every microbatch cut over the mesh."""
        return put_windows(functools.partial(self.read, batches, step), self.batch_shape, self.batch_sharding)

    def parameter_table(self) -> str:
        """Parameter -> what it is updated by -> logical axes -> mesh axes -> bytes on a device."""
        rows = []
        for path, leaf in nnx.to_flat_state(self._template):
            axes = self._axes[path]
            is_trained = leaf.type is not RouterBias
            by = optimizer.described(self.config.optim, self._matrices[path]) if is_trained else "load"
            rows.append((".".join(map(str, path)), by, axes, leaf, self.layout.spec(*axes, shape=leaf.shape)))
        return format_table(rows, self.layout.mesh)


def _abstract_model(
    config: Config, model_of: Callable[[Config, jax.Array], Transformer], dispatch: str | None
) -> tuple[Any, Any]:
    """(graph, abstract state) of the config's model, or of the same model with another dispatch."""
    if dispatch is not None and dispatch != config.moe.dispatch:
        config = dataclasses.replace(config, moe=dataclasses.replace(config.moe, dispatch=dispatch))
    return nnx.split(nnx.eval_shape(lambda: model_of(config, jax.random.key(0))))


def _logical_axes(path: tuple[Any, ...], leaf: Any) -> tuple[str | None, ...]:
    """As the parameter was declared; those of `blocks` have the scanned axis in front."""
    axes = leaf.get_metadata()["logical_axes"]
    return (None, *axes) if path[0] == "blocks" else axes


def _merged(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Two nested dicts without a leaf in common, as one."""
    return a | {name: _merged(a[name], value) if name in a else value for name, value in b.items()}


def recent_means(state: TrainState) -> dict[str, float]:
    """Means of AVERAGED over the last min(step, W) steps; a ring: until it is full, only its beginning is."""
    recent_WxM = np.asarray(state.recent_WxM, np.float64)[: int(state.step)]
    return dict(zip(AVERAGED, recent_WxM.mean(0).tolist(), strict=True))
