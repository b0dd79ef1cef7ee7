"""Causal multi-head self-attention.

B  sequences    H   heads
S  positions    Dh  d_model / heads
d  d_model
"""

import jax
import jax.numpy as jnp
from flax import nnx

from moe_jax.config import ModelConfig
from moe_jax.model.layers import Norm, parameter_dtype, weight
from moe_jax.sharding import Layout


class Attention(nnx.Module):
    """Scores and softmax in at least float32 (jax.nn.dot_product_attention's own rule); with `attention_float32` from
    float32 queries, keys and values, to the chip's full precision."""

    def __init__(self, config: ModelConfig, layout: Layout, key: jax.Array):
        self.config, self.layout = config, layout
        d, H = config.d_model, config.n_heads
        Dh = d // H
        keys = jax.random.split(key, 4)
        self.w_q_dxHxDh = weight(config, keys[0], (d, H, Dh), ("embed", None, None), d)
        self.w_k_dxHxDh = weight(config, keys[1], (d, H, Dh), ("embed", None, None), d)
        self.w_v_dxHxDh = weight(config, keys[2], (d, H, Dh), ("embed", None, None), d)
        self.w_o_HxDhxd = weight(config, keys[3], (H, Dh, d), (None, None, "embed"), d)
        if config.qk_norm:
            self.q_norm = Norm(config, Dh, "rmsnorm")
            self.k_norm = Norm(config, Dh, "rmsnorm")

    def __call__(self, x_BxSxd: jax.Array, document_BxS: jax.Array | None = None) -> jax.Array:
        """y_BxSxd. With the number of each position's document, positions see none but their own."""
        dtype, whole = x_BxSxd.dtype, self.layout.whole
        q_BxSxHxDh, k_BxSxHxDh, v_BxSxHxDh = (
            jnp.einsum("BSd,dHD->BSHD", x_BxSxd, whole(w[...].astype(dtype)))
            for w in (self.w_q_dxHxDh, self.w_k_dxHxDh, self.w_v_dxHxDh)
        )
        if self.config.qk_norm:
            q_BxSxHxDh, k_BxSxHxDh = self.q_norm(q_BxSxHxDh), self.k_norm(k_BxSxHxDh)
        if self.config.positions == "rope":
            q_BxSxHxDh, k_BxSxHxDh = rotate(q_BxSxHxDh), rotate(k_BxSxHxDh)
        mask_Bx1xSxS = None
        if document_BxS is not None:
            mask_Bx1xSxS = document_BxS[:, None, :, None] == document_BxS[:, None, None, :]
        precision = None
        if self.config.attention_float32:
            wide, precision = parameter_dtype(self.config), "highest"  # else a TPU multiplies float32 in bfloat16
            q_BxSxHxDh, k_BxSxHxDh, v_BxSxHxDh = (x.astype(wide) for x in (q_BxSxHxDh, k_BxSxHxDh, v_BxSxHxDh))
        with jax.default_matmul_precision(precision):
            y_BxSxHxDh = attend(q_BxSxHxDh, k_BxSxHxDh, v_BxSxHxDh, mask_Bx1xSxS)
        return jnp.einsum("BSHD,HDd->BSd", y_BxSxHxDh.astype(dtype), whole(self.w_o_HxDhxd[...].astype(dtype)))


def attend(q_BxSxHxDh: jax.Array, k_BxSxHxDh: jax.Array, v_BxSxHxDh: jax.Array, mask_Bx1xSxS: jax.Array | None):
    """y_BxSxHxDh of causal attention: JAX's own, except in the tests' float64, where its softmax is float32."""
    if q_BxSxHxDh.dtype != jnp.float64:
        return jax.nn.dot_product_attention(q_BxSxHxDh, k_BxSxHxDh, v_BxSxHxDh, mask=mask_Bx1xSxS, is_causal=True)
    _, S, _, Dh = q_BxSxHxDh.shape
    scores_BxHxSxS = jnp.einsum("BSHD,BTHD->BHST", q_BxSxHxDh, k_BxSxHxDh) / Dh**0.5
    seen = jnp.tril(jnp.ones((S, S), bool))[None, None]
    if mask_Bx1xSxS is not None:
        seen = seen & mask_Bx1xSxS
    shares_BxHxSxS = jax.nn.softmax(jnp.where(seen, scores_BxHxSxS, -jnp.inf), axis=-1)
    return jnp.einsum("BHST,BTHD->BSHD", shares_BxHxSxS, v_BxSxHxDh)


def rotate(x_BxSxHxDh: jax.Array) -> jax.Array:
    """Rotary positions (RoFormer, base 10,000), the halves of a head as pairs."""
    _, S, _, Dh = x_BxSxHxDh.shape
    wide = jnp.promote_types(x_BxSxHxDh.dtype, jnp.float32)
    frequency_D = 10_000.0 ** (-jnp.arange(Dh // 2, dtype=wide) / (Dh // 2))
    angle_SxD = jnp.arange(S, dtype=wide)[:, None] * frequency_D[None, :]
    cos, sin = jnp.cos(angle_SxD)[None, :, None, :], jnp.sin(angle_SxD)[None, :, None, :]
    a, b = jnp.split(x_BxSxHxDh.astype(wide), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BxSxHxDh.dtype)
