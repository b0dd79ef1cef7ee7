"""Skips batches whose gradient is far larger than those before: a pure rule on the norms of the last steps.

A norm is an outlier when it is more than `sigma_factor` standard deviations above the mean of the last
`rolling_interval` norms, once half of the interval is known (OLMo's skip-step rule, on the norm alone). An outlier
enters the interval as the limit it passed: one spike does not hide the next, and a level that has really changed is
accepted in the end. A norm that is not finite is no outlier: the run has diverged.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from moe_jax.config.schema import SkipStepConfig


@struct.dataclass
class SkipStep:
    """The rule's memory: a part of the train state."""

    norms_W: jax.Array  # ring buffer of the last W norms, outliers cut to their limit
    skipped: jax.Array  # batches skipped so far


def init(config: SkipStepConfig) -> SkipStep | None:
    """The memory before the first step; None, so no leaf of the state, where the config skips nothing."""
    return (
        None if config.sigma_factor is None else SkipStep(jnp.zeros(config.rolling_interval, jnp.float32), jnp.int32(0))
    )


def judge(config: SkipStepConfig, seen: SkipStep, norm: jax.Array, step: jax.Array) -> tuple[jax.Array, SkipStep]:
    """(whether the batch of update `step`, from 0, is skipped; the rule's memory after it)."""
    W = config.rolling_interval
    known_W = np.arange(W) < step  # until the ring is full, only its beginning is
    count = jnp.clip(step, 1, W).astype(jnp.float32)
    mean = jnp.where(known_W, seen.norms_W, 0).sum() / count
    spread = jnp.sqrt(jnp.where(known_W, (seen.norms_W - mean) ** 2, 0).sum() / count)
    limit = mean + config.sigma_factor * spread
    norm = norm.astype(jnp.float32)
    skip = (2 * step >= W) & (norm > limit) & jnp.isfinite(norm)
    norms_W = seen.norms_W.at[step % W].set(jnp.where(skip, limit, norm))
    return skip, SkipStep(norms_W, seen.skipped + skip.astype(jnp.int32))


def select(skip: jax.Array, old: Any, new: Any) -> Any:
    """`old` where the batch is skipped, else `new`: trees of parameters, or of the optimizer's state."""
    return jax.tree.map(lambda a, b: jnp.where(skip, a, b), old, new)
