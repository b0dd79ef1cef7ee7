"""The optimizer and its schedule, as functions of numbers that enter the step as values: runs of one shape share one
compile.

A transformation of optax turns the gradient into a direction; `apply_update` applies the rate and the decay, which are
the same for all optimizers."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding

from moe_jax.config.schema import Config, OptimConfig
from moe_jax.model.matrices import Matrices, Role
from moe_jax.training.adafactor import adafactor, is_factored
from moe_jax.training.muon import muon


@struct.dataclass
class Schedule:
    """The numbers of a schedule that differ between runs of one shape."""

    learning_rate: jax.Array  # at its height
    warmup_steps: jax.Array
    decay_start: jax.Array  # updates before it begins to fall
    steps: jax.Array


def schedule_of(config: Config) -> Schedule:
    """The schedule of a run as values of its step: float32 and int32 scalars."""
    return Schedule(
        learning_rate=np.float32(config.optim.learning_rate),
        warmup_steps=np.int32(config.warmup_steps),
        decay_start=np.int32(config.decay_start),
        steps=np.int32(config.steps),
    )


def learning_rate(config: OptimConfig, schedule: Schedule, step: jax.Array) -> jax.Array:
    """float32 rate of update `step` (from 0): a linear warm-up, rate · (step + 1) / warmup; then, from decay_start on,
    a fall that would reach final_fraction at update `steps`: half a cosine (krajewski2024's scheduler, from the end of
    the warm-up), or with wsd a line, before which the rate is stable.

    Updates before decay_start do not depend on `steps`: the trunk's are the branches' own, to the bit."""
    step, warmup, start, steps = (
        x.astype(jnp.float32) for x in (step, schedule.warmup_steps, schedule.decay_start, schedule.steps)
    )
    progress = jnp.clip((step - start) / jnp.maximum(steps - start, 1), 0, 1)
    falling = 0.5 * (1 + jnp.cos(jnp.pi * progress)) if config.schedule == "cosine" else 1 - progress
    shape = config.final_fraction + (1 - config.final_fraction) * falling
    return schedule.learning_rate * jnp.where(step < warmup, (step + 1) / jnp.maximum(warmup, 1), shape)


def transformation(
    config: OptimConfig, matrices: Mapping[tuple[str, ...], Matrices], whole: Mapping[tuple[str, ...], NamedSharding]
) -> optax.GradientTransformation:
    """Gradient -> direction, as optim.name says; `clipped` comes before it, and `apply_update` after.

    `matrices` are those of the parameters, by path; `whole` lays them out so that none is cut."""
    if config.name == "muon":
        return muon(config, matrices, whole)
    if config.name == "adafactor":
        return adafactor(config, matrices)
    if config.name == "lion":
        return _with_matrix_rate(config, optax.scale_by_lion(*config.betas), matrices)
    return _with_matrix_rate(config, optax.scale_by_adam(*config.betas, eps=config.eps), matrices)


def _with_matrix_rate(
    config: OptimConfig, inner: optax.GradientTransformation, matrices: Mapping[tuple[str, ...], Matrices]
) -> optax.GradientTransformation:
    """`inner`, whose directions of matrices that take the width are multiplied by optim.matrix_rate. The decay, which
    comes after, is not."""
    if config.matrix_rate == 1:
        return inner

    def update(gradient, state, params=None):
        direction, state = inner.update(gradient, state, params)
        flat = flatten_dict(direction)
        scaled = {path: u * config.matrix_rate if matrices[path].takes_width else u for path, u in flat.items()}
        return unflatten_dict(scaled), state

    return optax.GradientTransformation(inner.init, update)


def described(config: OptimConfig, matrices: Matrices) -> str:
    """What a parameter that holds these matrices takes, for the table at a run's start."""
    if config.name == "muon":
        return f"muon, {matrices}" if matrices.role is Role.LINEAR else "adamw"
    if config.name == "adafactor":
        return f"adafactor, {matrices}" if is_factored(matrices) else "adafactor, not factored"
    scaled = config.matrix_rate != 1 and matrices.takes_width
    return f"{config.name}, rate × {config.matrix_rate:g}" if scaled else config.name


def clipped(config: OptimConfig, gradient: Any, norm: jax.Array) -> Any:
    """The gradient, whose global norm is `norm`, scaled down to clip_norm where it is longer.

    By a product, which XLA puts into the loops of the moments; optax.clip_by_global_norm divides, for which XLA:CPU
    writes all gradients once more."""
    if config.clip_norm is None:
        return gradient
    scale = jnp.minimum(1, config.clip_norm / norm)
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), gradient)


def direction(optimizer: optax.GradientTransformation, gradient: Any, state: Any, params: Any) -> tuple[Any, Any]:
    """(direction of the update, the optimizer's state after it).

    The one place without strict dtype promotion: optax multiplies int32 counts by floats."""
    with jax.numpy_dtype_promotion("standard"):
        return optimizer.update(gradient, state, params)


def apply_update(config: OptimConfig, params: Any, direction: Any, rate: jax.Array, height: jax.Array) -> Any:
    """params − rate · (direction + decay · params), each leaf in its own dtype. Every parameter decays.

    With weight_decay_by_lr=False the decay is not multiplied by the rate, but follows the schedule from 1 at its
    `height` (abnar2025's decoupled weight decay)."""
    share = rate if config.weight_decay_by_lr else rate / height

    def update(p, u):
        return p - (rate.astype(u.dtype) * u + (share * config.weight_decay).astype(p.dtype) * p).astype(p.dtype)

    return jax.tree.map(update, params, direction)
