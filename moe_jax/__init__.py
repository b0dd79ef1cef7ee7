"""Scaling-law experiments on fine-grained Mixture-of-Experts language models in JAX."""

import os

# etils.epath would import TensorFlow for gs:// wherever it is installed; training never needs it.
os.environ.setdefault("EPATH_USE_TF", "0")
