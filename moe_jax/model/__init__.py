"""The decoder and its MoE layer (Flax NNX): a config, a mesh and tokens in, losses out.

Imports moe_jax.config and the ground (errors, text, …) only.

The road of a token:
transformer      blocks, scanned; the loss, without ever holding all logits
  attention      causal attention
    causal_attention    by chunks of queries, on any device
    flash_attention     by the device's kernel (TPU, GPU)
  layers         parameters, norms, the dense feed-forward
  moe            the MoE layer: route, dispatch, experts, combine, in one shard_map
    routers/     assignment of tokens to experts; a router of your own plugs in here
    dispatch     tokens to experts and back: slots, dropless, dense
    experts      the experts' feed-forward
      chunked_experts   in chunks of rows (CPU, GPU)
      megablox          by Pallas kernels (TPU)
    gathers      rows by index, whose backward pass gathers too
  precision      the dtype of sums beside a compute dtype
  expert_load    loads of experts: the bias that evens them out, and what is logged
  remat          what the backward pass computes again
matrices         the matrices that parameters hold, for optimizers of matrices
sharding         the mesh, and the only names of its axes
"""
