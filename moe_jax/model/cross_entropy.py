"""Cross-entropy of next tokens, chunk by chunk of positions: all logits are never in memory at once.

These functions see one device's share of the batch (they are called inside shard_map).

B  sequences    d  d_model       n, s  chunks of positions, and positions of a chunk
S  positions    V  vocabulary
"""

import functools

import jax
import jax.numpy as jnp

from moe_jax.model.precision import accumulation_dtype


def unembed(x_BxSxd: jax.Array, head_dxV: jax.Array) -> jax.Array:
    """logits_BxSxV, in at least float32."""
    return jnp.einsum("BSd,dV->BSV", x_BxSxd, head_dxV, preferred_element_type=accumulation_dtype(x_BxSxd.dtype))


def token_losses(positions: int, x_BxSxd: jax.Array, target_BxS: jax.Array, head_dxV: jax.Array) -> jax.Array:
    """loss_BxS in nats, in at least float32; chunks have at most so many `positions`."""

    @jax.checkpoint  # where somebody differentiates it, a chunk's logits are computed again
    def chunk(_, part):
        x_Bxsxd, target_Bxs = part
        logits_BxsxV = unembed(x_Bxsxd, head_dxV.astype(x_Bxsxd.dtype))
        return None, jax.nn.logsumexp(logits_BxsxV, axis=-1) - _hit(logits_BxsxV, target_Bxs)

    _, loss_nxBxs = jax.lax.scan(chunk, None, _chunks(positions, x_BxSxd, target_BxS))
    return _whole(loss_nxBxs)


def token_scores(
    positions: int, x_BxSxd: jax.Array, target_BxS: jax.Array, head_dxV: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(loss_BxS as token_losses gives it, likeliest_BxS: whether the target is the first of the most likely tokens)."""

    def chunk(_, part):
        x_Bxsxd, target_Bxs = part
        logits_BxsxV = unembed(x_Bxsxd, head_dxV.astype(x_Bxsxd.dtype))
        loss_Bxs = jax.nn.logsumexp(logits_BxsxV, axis=-1) - _hit(logits_BxsxV, target_Bxs)
        return None, (loss_Bxs, logits_BxsxV.argmax(-1).astype(target_Bxs.dtype) == target_Bxs)

    _, found = jax.lax.scan(chunk, None, _chunks(positions, x_BxSxd, target_BxS))
    return jax.tree.map(_whole, found)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def summed_loss(positions: int, x_BxSxd: jax.Array, target_BxS: jax.Array, head_dxV: jax.Array) -> jax.Array:
    """Σ token_losses, for training: a chunk's gradient is computed beside its logits, not from them computed again.

    head_dxV and its gradient, summed over the chunks, have at least float32."""
    return token_losses(positions, x_BxSxd, target_BxS, head_dxV).sum()


def _summed_loss_fwd(positions, x_BxSxd, target_BxS, head_dxV):
    dtype = x_BxSxd.dtype
    narrow_dxV = head_dxV.astype(dtype)

    def chunk(carry, part):
        loss, d_head_dxV = carry
        x_Bxsxd, target_Bxs = part
        logits_BxsxV = unembed(x_Bxsxd, narrow_dxV)
        max_Bxs = logits_BxsxV.max(-1)
        exp_BxsxV = jnp.exp(logits_BxsxV - max_Bxs[..., None])
        sum_Bxs = exp_BxsxV.sum(-1)
        loss += (max_Bxs + jnp.log(sum_Bxs) - _hit(logits_BxsxV, target_Bxs)).sum()
        hit_BxsxV = target_Bxs[..., None] == jnp.arange(logits_BxsxV.shape[-1], dtype=target_Bxs.dtype)[None, None]
        d_logits_BxsxV = (exp_BxsxV * (1 / sum_Bxs)[..., None] - hit_BxsxV.astype(exp_BxsxV.dtype)).astype(dtype)
        d_x_Bxsxd = jnp.einsum("BsV,dV->Bsd", d_logits_BxsxV, narrow_dxV)
        d_head_dxV += jnp.einsum("Bsd,BsV->dV", x_Bxsxd, d_logits_BxsxV, preferred_element_type=d_head_dxV.dtype)
        return (loss, d_head_dxV), d_x_Bxsxd

    nothing = jnp.zeros_like(head_dxV, shape=())  # varying over the mesh as the head does here
    carry = (nothing, jnp.zeros_like(head_dxV))
    (loss, d_head_dxV), d_x_nxBxsxd = jax.lax.scan(chunk, carry, _chunks(positions, x_BxSxd, target_BxS))
    return loss, (_whole(d_x_nxBxsxd), d_head_dxV)


def _summed_loss_bwd(positions, saved, d_loss):
    d_x_BxSxd, d_head_dxV = saved  # of the sum
    return (d_loss * d_x_BxSxd.astype(d_loss.dtype)).astype(d_x_BxSxd.dtype), None, d_loss * d_head_dxV


summed_loss.defvjp(_summed_loss_fwd, _summed_loss_bwd)


def _hit(logits_BxsxV: jax.Array, target_Bxs: jax.Array) -> jax.Array:
    """The target's logit."""
    return jnp.take_along_axis(logits_BxsxV, target_Bxs[..., None], axis=-1)[..., 0]


def _chunks(positions: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays BxSx… as nxBxsx…, with s the largest divisor of S up to `positions`."""
    B, S = arrays[0].shape[:2]
    s = next(s for s in range(min(S, positions), 0, -1) if S % s == 0)
    return tuple(a.reshape(B, S // s, s, *a.shape[2:]).swapaxes(0, 1) for a in arrays)


def _whole(a: jax.Array) -> jax.Array:
    """nxBxsx… as BxSx…."""
    n, B, s = a.shape[:3]
    return a.swapaxes(0, 1).reshape(B, n * s, *a.shape[3:])
