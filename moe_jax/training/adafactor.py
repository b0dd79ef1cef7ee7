"""Adafactor: a matrix's second moments as one number a row and a column (Shazeer and Stern 2018, arXiv 1804.04235).

optax's, on each matrix by itself: a layer's, an expert's, all heads of a projection, values and gates apart. (optax
alone would take the two longest axes of a parameter, be they layers or experts.) As in the paper, second moments forget
by 1 − t^−0.8, a matrix's update has a root mean square of at most 1, and is then multiplied by that of the matrix, at
least 1e-3: the learning rate is relative to it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from moe_jax.config.schema import OptimConfig
from moe_jax.model.matrices import Matrices

# A matrix with fewer rows or columns keeps all its second moments: optax's default.
LEAST_TO_FACTOR = 128
_OF_ONE = optax.FactoredState(None, 0, 0, 0)  # axes of vmap: the count is one for all


class AdafactorState(NamedTuple):
    """Second moments by parameter: along its matrices' shorter and longer side, or of every number where these are too
    small to be factored."""

    count: jax.Array
    shorter: dict[str, Any]
    longer: dict[str, Any]
    whole: dict[str, Any]
    momentum: dict[str, Any] | None  # None where the config has none


def is_factored(matrices: Matrices) -> bool:
    """Whether second moments are kept by rows and columns."""
    return min(matrices.rows, matrices.columns) >= LEAST_TO_FACTOR


def adafactor(config: OptimConfig, matrices: Mapping[tuple[str, ...], Matrices]) -> optax.GradientTransformation:
    """The transformation of the gradient of parameters that hold these `matrices`, by path.

    With optim.momentum the direction is the moving average of Adafactor's."""
    moments = optax.scale_by_factored_rms(min_dim_size_to_factor=LEAST_TO_FACTOR)
    clip, by_size = optax.clip_by_block_rms(1.0), optax.scale_by_param_block_rms()

    def one(g_rxc: jax.Array, state: optax.FactoredState, p_rxc: jax.Array) -> tuple[jax.Array, optax.FactoredState]:
        u_rxc, state = moments.update(g_rxc, state, p_rxc)
        u_rxc, _ = clip.update(u_rxc, optax.EmptyState())
        u_rxc, _ = by_size.update(u_rxc, optax.EmptyState(), p_rxc)
        return u_rxc, state

    def init(params: dict[str, Any]) -> AdafactorState:
        shorter, longer, whole = {}, {}, {}
        for path, p in flatten_dict(params).items():
            m = matrices[path]
            if is_factored(m):
                shorter[path] = jnp.zeros((*m.counts, min(m.rows, m.columns)), p.dtype)
                longer[path] = jnp.zeros((*m.counts, max(m.rows, m.columns)), p.dtype)
            else:
                whole[path] = jnp.zeros_like(p)
        momentum = None if config.momentum is None else optax.tree.zeros_like(params)
        return AdafactorState(jnp.zeros([], jnp.int32), *map(unflatten_dict, (shorter, longer, whole)), momentum)

    def update(
        gradient: dict[str, Any], state: AdafactorState, params: dict[str, Any]
    ) -> tuple[dict[str, Any], AdafactorState]:
        shorter, longer, whole = map(flatten_dict, (state.shorter, state.longer, state.whole))
        parameters, directions = flatten_dict(params), {}
        for path, g in flatten_dict(gradient).items():
            m, unused = matrices[path], jnp.zeros((*matrices[path].counts, 1), g.dtype)
            if is_factored(m):
                before = optax.FactoredState(state.count, shorter[path], longer[path], unused)
            else:
                before = optax.FactoredState(state.count, unused, unused, m.split(whole[path]))
            direction, after = _mapped(one, m)(m.split(g), before, m.split(parameters[path]))
            directions[path] = m.joined(direction)
            if is_factored(m):
                shorter[path], longer[path] = after.v_row, after.v_col
            else:
                whole[path] = m.joined(after.v)
        directions, momentum = unflatten_dict(directions), None
        if config.momentum is not None:
            directions = momentum = optax.tree.update_moment(directions, state.momentum, config.momentum, 1)
        moved = map(unflatten_dict, (shorter, longer, whole))
        return directions, AdafactorState(optax.safe_increment(state.count), *moved, momentum)

    return optax.GradientTransformation(init, update)


def _mapped(one: Callable[..., Any], matrices: Matrices) -> Callable[..., Any]:
    """`one` matrix's update, mapped over the axes that count matrices."""
    for _ in matrices.counts:
        one = jax.vmap(one, in_axes=(0, _OF_ONE, 0), out_axes=(0, _OF_ONE))
    return one
