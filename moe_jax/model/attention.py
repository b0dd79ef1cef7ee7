"""Causal multi-head self-attention, where several heads of queries may share one of keys and values (Ainslie et al.
2023).

B  sequences    H   heads; N  heads of keys and values, H or a divisor of it
S  positions    Dh  width of a head
d  d_model      h   rotary pairs of a head, Dh / 2
"""

import jax
import jax.numpy as jnp
from flax import nnx

from moe_jax.config.schema import ModelConfig
from moe_jax.model import causal_attention, flash_attention
from moe_jax.model.layers import Norm, parameter_dtype, weight
from moe_jax.model.precision import accumulation_dtype
from moe_jax.model.sharding import Layout


class Attention(nnx.Module):
    """Multi-head self-attention with scores and softmax in at least float32. Head i of the queries meets head
    i // (H / N) of keys and values.

    With `attention_float32` queries, keys and values are float32 too, and products have the chip's full precision."""

    def __init__(self, config: ModelConfig, layout: Layout, key: jax.Array):
        self.config, self.layout = config, layout
        d, H, N, Dh = config.d_model, config.n_heads, config.n_kv_heads, config.head_dim
        keys = jax.random.split(key, 4)
        self.w_q_dxHxDh = weight(config, keys[0], (d, H, Dh), ("embed", None, None), d)
        self.w_k_dxNxDh = weight(config, keys[1], (d, N, Dh), ("embed", None, None), d)
        self.w_v_dxNxDh = weight(config, keys[2], (d, N, Dh), ("embed", None, None), d)
        self.w_o_HxDhxd = weight(config, keys[3], (H, Dh, d), (None, None, "embed"), H * Dh)
        if config.qk_norm != "none":
            full = config.qk_norm == "full"
            self.q_norm = Norm(config, H * Dh if full else Dh, "rmsnorm")
            self.k_norm = Norm(config, N * Dh if full else Dh, "rmsnorm")

    def __call__(self, x_BxSxd: jax.Array, document_BxS: jax.Array | None = None) -> jax.Array:
        """y_BxSxd. With document_BxS, the number of each position's document, positions attend to their own alone."""
        dtype, gathered = x_BxSxd.dtype, self.layout.gathered
        q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh = (
            jnp.einsum("BSd,dHD->BSHD", x_BxSxd, gathered(w[...].astype(dtype)))
            for w in (self.w_q_dxHxDh, self.w_k_dxNxDh, self.w_v_dxNxDh)
        )
        if self.config.qk_norm == "head":
            q_BxSxHxDh, k_BxSxNxDh = self.q_norm(q_BxSxHxDh), self.k_norm(k_BxSxNxDh)
        elif self.config.qk_norm == "full":
            q_BxSxHxDh, k_BxSxNxDh = _over_heads(self.q_norm, q_BxSxHxDh), _over_heads(self.k_norm, k_BxSxNxDh)
        if self.config.positions == "rope":
            theta = self.config.rope_theta
            q_BxSxHxDh, k_BxSxNxDh = rotate(q_BxSxHxDh, theta), rotate(k_BxSxNxDh, theta)
        mesh, documents = self.layout.mesh, document_BxS is not None
        by, _ = flash_attention.choose(self.config, mesh.devices.flat[0], x_BxSxd.shape[1], documents)
        precision = None
        if self.config.attention_float32:
            precision = "highest"  # else a TPU multiplies float32 in bfloat16
            score_dtype = parameter_dtype(self.config)
            q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh = (x.astype(score_dtype) for x in (q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh))
        if by == "flash":
            y_BxSxHxDh = flash_attention.attend(mesh, q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh, document_BxS)
        else:
            y_BxSxHxDh = causal_attention.attend(q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh, document_BxS, precision)
        return jnp.einsum("BSHD,HDd->BSd", y_BxSxHxDh.astype(dtype), gathered(self.w_o_HxDhxd[...].astype(dtype)))


def _over_heads(norm: Norm, x_BxSxHxDh: jax.Array) -> jax.Array:
    """The norm over all heads together, as in OLMoE (Muennighoff et al. 2024)."""
    B, S, H, Dh = x_BxSxHxDh.shape
    return norm(x_BxSxHxDh.reshape(B, S, H * Dh)).reshape(B, S, H, Dh)


def rotate(x_BxSxHxDh: jax.Array, theta: float) -> jax.Array:
    """Rotary positions (RoFormer) of base theta; a pair takes one number from each half of a head."""
    _, S, _, Dh = x_BxSxHxDh.shape
    dtype = accumulation_dtype(x_BxSxHxDh.dtype)
    frequency_h = float(theta) ** (-jnp.arange(Dh // 2, dtype=dtype) / (Dh // 2))
    angle_Sxh = jnp.arange(S, dtype=dtype)[:, None] * frequency_h[None, :]
    cos, sin = jnp.cos(angle_Sxh)[None, :, None, :], jnp.sin(angle_Sxh)[None, :, None, :]
    a, b = jnp.split(x_BxSxHxDh.astype(dtype), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BxSxHxDh.dtype)
