"""Leaves out batches whose gradient is far larger than those before: a pure rule on the norms of the last steps.

A norm is an outlier when it is more than `factor` standard deviations above the mean of the last `window` norms, once
half of the window is known (OLMo's skip-step rule, on the norm alone). An outlier enters the window as the limit it
passed: one spike does not hide the next, and a level that has really changed is accepted in the end. A norm that is not
finite is no outlier: the run has diverged.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from moe_jax.config import GuardConfig


@struct.dataclass
class Guard:
    """What the rule remembers: a part of the train state."""

    norms_W: jax.Array  # ring buffer of the last W norms, outliers cut to their limit
    skipped: jax.Array  # batches left out so far


def init(config: GuardConfig) -> Guard | None:
    """None, no leaf of the state, where nothing is to be left out."""
    return None if config.factor is None else Guard(jnp.zeros(config.window, jnp.float32), jnp.int32(0))


def judge(config: GuardConfig, guard: Guard, norm: jax.Array, step: jax.Array) -> tuple[jax.Array, Guard]:
    """(whether the batch of update `step`, from 0, is left out; the guard after it)."""
    W = config.window
    known_W = np.arange(W) < step  # until the ring is full, only its beginning is
    count = jnp.clip(step, 1, W)
    mean = jnp.where(known_W, guard.norms_W, 0).sum() / count
    spread = jnp.sqrt(jnp.where(known_W, (guard.norms_W - mean) ** 2, 0).sum() / count)
    limit = mean + config.factor * spread
    norm = norm.astype(jnp.float32)
    skip = (2 * step >= W) & (norm > limit) & jnp.isfinite(norm)
    norms_W = guard.norms_W.at[step % W].set(jnp.where(skip, limit, norm))
    return skip, Guard(norms_W, guard.skipped + skip)


def keep(skip: jax.Array, old, new):
    """`old` where the batch is left out, else `new`: parameters, or the optimizer's state."""
    return jax.tree.map(lambda a, b: jnp.where(skip, a, b), old, new)
