"""Muon: the direction is the gradient's momentum, orthogonalised matrix by matrix (Jordan et al. 2024).

It is for the linear maps inside the blocks: attention's projections and the matrices of feed-forwards and experts, each
layer's and each expert's by itself, values and gates apart. Embeddings, unembedding, router, norms and biases take
Adam, as all but the router do in Jordan et al. and in Liu et al. 2025 ("Muon is Scalable for LLM Training", arXiv
2502.16982). That the router does, which gives logits as the unembedding does, is ours.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding

from moe_jax.config.schema import OptimConfig
from moe_jax.model.matrices import Matrices, Role

# Liu et al. 2025: about the root mean square of AdamW's updates, so that AdamW's rate and decay fit.
UPDATE_RMS = 0.2


class MuonState(NamedTuple):
    """The momentum of the parameters that take Muon, and Adam's state of the others."""

    count: jax.Array
    momentum: dict[str, Any]
    adam: optax.ScaleByAdamState


def muon(
    config: OptimConfig, matrices: Mapping[tuple[str, ...], Matrices], whole: Mapping[tuple[str, ...], NamedSharding]
) -> optax.GradientTransformation:
    """The transformation of the gradient of parameters that hold these `matrices`, by path.

    A matrix that the mesh cuts is gathered: `whole` has a layout of `Matrices.split` that cuts none."""
    adam = optax.scale_by_adam(*config.betas, eps=config.eps)
    beta = config.momentum

    def parted(tree: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        flat = flatten_dict(tree)
        linear = {path: x for path, x in flat.items() if matrices[path].role is Role.LINEAR}
        return unflatten_dict(linear), unflatten_dict({path: x for path, x in flat.items() if path not in linear})

    def init(params: dict[str, Any]) -> MuonState:
        linear, others = parted(params)
        return MuonState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(linear), adam.init(others))

    def update(gradient: dict[str, Any], state: MuonState, params: Any = None) -> tuple[dict[str, Any], MuonState]:
        linear, others = parted(gradient)
        count = optax.safe_increment(state.count)
        momentum = optax.tree.update_moment(linear, state.momentum, beta, 1)
        # Nesterov's, with the bias corrections of optax.contrib.scale_by_muon.
        ahead = optax.tree.bias_correction(momentum, beta, optax.safe_increment(count))
        now = optax.tree.bias_correction(linear, beta, count)
        mixed = flatten_dict(jax.tree.map(lambda m, g: beta * m + (1 - beta) * g, ahead, now))
        direction = {path: _orthogonalised(x, matrices[path], whole[path], config.eps) for path, x in mixed.items()}
        others, adam_state = adam.update(others, state.adam)
        return unflatten_dict(direction | flatten_dict(others)), MuonState(count, momentum, adam_state)

    return optax.GradientTransformation(init, update)


def _orthogonalised(x: jax.Array, matrices: Matrices, whole: NamedSharding, eps: float) -> jax.Array:
    """x, each of its matrices r × c made nearly orthogonal, times UPDATE_RMS · sqrt(max(r, c)) (Liu et al.)."""
    # Without a momentum, optax's transformation of a matrix is its Newton–Schulz iteration, of five steps. It is mapped
    # over the axes that count matrices: optax's own batches would merge these, which gathers a cut axis of experts.
    iteration = optax.contrib.scale_by_muon(beta=0.0, nesterov=False, eps=eps)

    def each(x_rxc: jax.Array) -> jax.Array:
        return iteration.update(x_rxc, iteration.init(x_rxc))[0]

    for _ in matrices.counts:
        each = jax.vmap(each)
    split = jax.lax.with_sharding_constraint(matrices.split(x), whole)
    return matrices.joined(each(split) * (UPDATE_RMS * max(matrices.rows, matrices.columns) ** 0.5))
