"""One MoE layer beside the oracle, the same layer with `dispatch=dense`: every expert computes every token."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from moe_jax.config.schema import MeshConfig
from moe_jax.model import sharding
from moe_jax.model.moe import MoeLayer
from tests.models import config, distance


def layer(c, data, expert):
    """(graph, state) of the config's layer on that mesh."""
    mesh = sharding.make_mesh(MeshConfig(1, data, expert), jax.devices()[: data * expert])
    return nnx.split(MoeLayer(c, sharding.Layout(mesh), jax.random.key(0)))


def run(overrides, kind, data, expert):
    """(y, statistics, gradients of inputs and parameters) of one layer, on the host."""
    c = config(*overrides)
    graph, state = layer(c, data, expert)
    params = nnx.to_pure_dict(state)
    dtype = jnp.dtype(c.model.compute_dtype)
    shape = (c.train.batch_sequences, c.data.sequence_length, c.model.d_model)
    x_BxSxd = jax.random.normal(jax.random.key(1), shape)
    if kind is not None:  # the first feature is the same in all tokens, and the router looks at it
        x_BxSxd = x_BxSxd.at[..., 0].set(3.0)
        router = params["router_dxE"]
        wanted = {"one expert": jnp.zeros_like(router).at[0, 3].set(5.0), "empty expert": router.at[0, 2].set(-50.0)}
        params["router_dxE"] = wanted[kind]
    seen_BxSxd = jax.random.normal(jax.random.key(2), shape)  # what the gradient comes back with

    @jax.jit
    def both(params, x_BxSxd):
        def loss(params, x_BxSxd):
            nnx.replace_by_pure_dict(state, params)
            y_BxSxd, statistics = nnx.merge(graph, state)(x_BxSxd.astype(dtype))
            seen = jnp.sum(y_BxSxd.astype(seen_BxSxd.dtype) * seen_BxSxd)
            return seen + 0.1 * statistics["balance"] + 0.1 * statistics["z"], (y_BxSxd, statistics)

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x_BxSxd)

    (_, (y, statistics)), gradients = both(params, x_BxSxd)
    return np.asarray(y, np.float32), jax.device_get(statistics), jax.device_get(gradients)


def compare(overrides, kind=None, data=1, expert=1, bound=1e-5):
    y, statistics, gradients = run(overrides, kind, data, expert)
    y_dense, statistics_dense, gradients_dense = run((*overrides, "moe.dispatch=dense"), kind, 1, 1)
    assert distance(y, y_dense) < bound
    for name, value in statistics_dense.items():
        np.testing.assert_allclose(statistics[name], value, rtol=bound, atol=1e-7, err_msg=name)
    pairs = zip(jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(gradients_dense), strict=True)
    for (path, a), b in pairs:
        assert distance(a, b) < bound, jax.tree_util.keystr(path)
    return statistics, gradients
