"""The decoder and its MoE layer (Flax NNX)."""
