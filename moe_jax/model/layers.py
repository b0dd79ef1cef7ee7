"""Parameters, norms and the dense feed-forward.

B  sequences of the batch      d  d_model
S  positions                   f  d_ff
F  f, or 2 f where gated: values, then gates
"""

import jax
import jax.numpy as jnp
from flax import nnx

from moe_jax.config.schema import ModelConfig
from moe_jax.model.precision import accumulation_dtype
from moe_jax.model.sharding import Layout


def parameter_dtype(config: ModelConfig) -> jnp.dtype:
    """The dtype of parameters and router logits: float32, or float64 where a test computes in it."""
    return accumulation_dtype(config.compute_dtype)


def weight(
    config: ModelConfig, key: jax.Array, shape: tuple[int, ...], axes: tuple[str | None, ...], fan_in: int,
    readout: bool = False,
) -> nnx.Param:  # fmt: skip
    """Truncated normal with std = sqrt(scale / fan_in), cut at ±2 scale (krajewski2024's code; Switch's scale).

    The scale of a `readout`, unembedding or router, is readout_init_scale, that of others init_scale."""
    scale = config.readout_init_scale if readout else config.init_scale
    std = (scale / fan_in) ** 0.5
    cut = 2 * scale / std
    values = std * jax.random.truncated_normal(key, -cut, cut, shape, jnp.float32)
    return nnx.Param(values.astype(parameter_dtype(config)), logical_axes=axes)


def bias(config: ModelConfig, key: jax.Array, size: int, fan_in: int) -> nnx.Param:
    """Uniform in ±1/sqrt(fan_in), PyTorch's default, which krajewski2024's code leaves to its dense feed-forward."""
    values = jax.random.uniform(key, (size,), jnp.float32, -1, 1) / fan_in**0.5
    return nnx.Param(values.astype(parameter_dtype(config)), logical_axes=(None,))


class Norm(nnx.Module):
    """LayerNorm or RMSNorm over the last axis, in at least float32."""

    def __init__(self, config: ModelConfig, width: int | None = None, kind: str | None = None):
        self.kind, self.eps = kind or config.norm, config.norm_eps
        width = width or config.d_model
        dtype = parameter_dtype(config)
        self.scale = nnx.Param(jnp.ones(width, dtype), logical_axes=(None,))
        if self.kind == "layernorm":
            self.bias = nnx.Param(jnp.zeros(width, dtype), logical_axes=(None,))

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x.astype(self.scale.dtype)
        if self.kind == "layernorm":
            y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps)
        y = y * _rank(self.scale[...], y.ndim)
        if self.kind == "layernorm":
            y = y + _rank(self.bias[...], y.ndim)
        return y.astype(x.dtype)


def _rank(v: jax.Array, ndim: int) -> jax.Array:
    return v.reshape((1,) * (ndim - 1) + v.shape)


def activate(kind: str, h_xF: jax.Array) -> jax.Array:
    """relu(h) or gelu(h) of the last axis; for swiglu, silu(gate) · h of its halves, which are h and gate."""
    if kind == "swiglu":
        h, gate = jnp.split(h_xF, 2, axis=-1)
        return jax.nn.silu(gate) * h
    return jax.nn.relu(h_xF) if kind == "relu" else jax.nn.gelu(h_xF)


class FeedForward(nnx.Module):
    """The dense feed-forward, the twin of the MoE layer."""

    def __init__(self, config: ModelConfig, layout: Layout, key: jax.Array):
        self.config, self.layout = config, layout
        d, f = config.d_model, config.d_ff
        F = 2 * f if config.gated else f
        keys = jax.random.split(key, 4)
        self.w_in_dxF = weight(config, keys[0], (d, F), ("embed", None), d)
        self.w_out_fxd = weight(config, keys[1], (f, d), (None, "embed"), f)
        if config.ff_bias:
            self.b_in_f = bias(config, keys[2], f, d)
            self.b_out_d = bias(config, keys[3], d, f)

    def __call__(self, x_BxSxd: jax.Array) -> jax.Array:
        dtype, gathered = x_BxSxd.dtype, self.layout.gathered
        h_BxSxF = x_BxSxd @ gathered(self.w_in_dxF[...].astype(dtype))
        if self.config.ff_bias:
            h_BxSxF = h_BxSxF + _rank(self.b_in_f[...].astype(dtype), 3)
        y_BxSxd = activate(self.config.activation, h_BxSxF) @ gathered(self.w_out_fxd[...].astype(dtype))
        return y_BxSxd + _rank(self.b_out_d[...].astype(dtype), 3) if self.config.ff_bias else y_BxSxd
