"""Scaling-law experiments on fine-grained Mixture-of-Experts language models in JAX."""
