"""Causal attention by the kernel of the device: JAX's splash attention (Pallas) on TPU, cuDNN's on NVIDIA GPUs.

A kernel keeps scores on the chip, so main memory never sees them (Dao et al. 2022). It runs in one shard_map over the
whole mesh, on each device's share of the batch; shard_map cannot check kernels (check_vma), but all their inputs and
outputs are cut over the whole mesh, so nothing has to be reduced there.

B  sequences    H   heads
S  positions    N   heads of keys and values, H or a divisor of it
                Dh  width of a head
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from moe_jax.config.checks import refuse
from moe_jax.config.schema import ModelConfig
from moe_jax.model.sharding import AXES

_LANES = 128  # of a TPU's vectors: blocks of positions are multiples
_LARGEST_BLOCKS = 1024, 1024  # of queries and of keys; scores of larger ones do not fit a core's memory beside the rest
_LARGEST_PRODUCT = 512  # keys of a block that are multiplied at once


def choose(model: ModelConfig, device: Any, positions: int, documents: bool) -> tuple[str, str]:
    """("flash" or "xla", why) for sequences of so many positions on `device`, with `documents` masked or not: what
    model.attention says; where that is `auto`, the device's kernel if it has one.

    Raises UserError where model.attention is `flash` and the device has no kernel."""
    if model.attention == "xla":
        return "xla", "model.attention says so"
    missing = _why_not(model, device, positions, documents)
    if missing and model.attention == "flash":
        refuse("model.attention", "flash", f"{missing}; use auto or xla")
    return ("xla", missing) if missing else ("flash", f"the {device.platform} device has a kernel")


def _why_not(model: ModelConfig, device: Any, positions: int, documents: bool) -> str | None:
    """The rule by which the device has no kernel; None where it has one."""
    width = model.head_dim
    capability = _capability(device)
    if device.platform != "tpu" and capability < 8:
        return f"a {device.platform} device has no kernel; TPUs and NVIDIA GPUs from compute capability 8.0 on have"
    if model.attention_float32:
        return "kernels multiply in bfloat16, and model.attention_float32 asks for float32"
    if model.compute_dtype != "bfloat16":
        return f"kernels take bfloat16, not model.compute_dtype = {model.compute_dtype}"
    most = 256 if device.platform == "tpu" or capability >= 9 else 128
    if width % 8 or width > most:
        return f"kernels take heads whose width is a multiple of 8 up to {most}, not model.head_dim = {width}"
    if device.platform == "tpu" and positions % _LANES:
        return f"the kernel for TPU takes a multiple of {_LANES} positions, not data.sequence_length = {positions}"
    if device.platform != "tpu" and documents:
        return "the kernel for GPU knows no documents, and data.mask_documents asks for them"
    return None


def attend(
    mesh: Mesh, q_BxSxHxDh: jax.Array, k_BxSxNxDh: jax.Array, v_BxSxNxDh: jax.Array, document_BxS: jax.Array | None
) -> jax.Array:
    """y_BxSxHxDh, as causal_attention.attend gives it up to rounding. On a CPU the kernel for TPU runs interpreted,
    slowly."""
    platform = mesh.devices.flat[0].platform
    kernel = _cudnn if platform == "gpu" else functools.partial(_splash, platform != "tpu")
    local = jax.shard_map(kernel, mesh=mesh, in_specs=P(AXES), out_specs=P(AXES), check_vma=False)
    return local(q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh, document_BxS)


def _splash(interpret, q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh, document_BxS):
    # Here, because Pallas takes a while to import and a training on a CPU does without.
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    _, S, H, Dh = q_BxSxHxDh.shape
    # The kernel does not divide scores by the root of the width. Only the quotient is rounded, not the divisor.
    q_BxSxHxDh = (q_BxSxHxDh.astype(jnp.float32) * Dh**-0.5).astype(q_BxSxHxDh.dtype)
    q_BxHxSxDh, k_BxNxSxDh, v_BxNxSxDh = (a.swapaxes(1, 2) for a in (q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh))
    causal = masks.MultiHeadMask([masks.CausalMask((S, S))] * H)
    # One kernel computes all three gradients: scores are then computed once in the backward pass, and the gradient of
    # queries is added up from one part a block of keys.
    sizes = splash.BlockSizes(*_block_sizes(S), *_block_sizes(S), use_fused_bwd_kernel=True)
    kernel = splash.make_splash_mha_single_device(causal, block_sizes=sizes, interpret=interpret)

    def one(q_HxSxDh, k_NxSxDh, v_NxSxDh, document_S):
        documents = None if document_S is None else splash.SegmentIds(document_S, document_S)
        return kernel(q_HxSxDh, k_NxSxDh, v_NxSxDh, documents)

    return jax.vmap(one)(q_BxHxSxDh, k_BxNxSxDh, v_BxNxSxDh, document_BxS).swapaxes(1, 2)


def _block_sizes(S: int) -> tuple[int, int, int]:
    """Positions of a block of queries, of a block of keys, and of the keys that are multiplied at once: the largest
    that divide S."""
    q, kv = (next(size for size in range(most, 0, -_LANES) if S % size == 0) for most in _LARGEST_BLOCKS)
    return q, kv, next(size for size in range(_LARGEST_PRODUCT, 0, -_LANES) if kv % size == 0)


def _cudnn(q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh, document_BxS):
    assert document_BxS is None  # _why_not says so
    return jax.nn.dot_product_attention(
        q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh, is_causal=True, implementation="cudnn"
    )  # fmt: skip


def _capability(device: Any) -> float:
    """The compute capability of an NVIDIA GPU; 0 of any other device."""
    try:
        return float(device.compute_capability)
    except (AttributeError, ValueError):  # AMD's are names
        return 0
