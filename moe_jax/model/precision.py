"""The dtype that sums, norms and parameters have beside a compute dtype."""

from typing import Any

import jax.numpy as jnp


def accumulation_dtype(dtype: Any) -> jnp.dtype:
    """float32, whatever the dtype; float64 where a test computes in it."""
    return jnp.dtype(jnp.float64 if jnp.dtype(dtype) == jnp.float64 else jnp.float32)
