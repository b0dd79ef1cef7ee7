"""Scaling-law experiments on fine-grained Mixture-of-Experts language models in JAX.

What is public:

    python -m moe_jax VERB    every step from a token store to a report; `moe-jax VERB` is the same
    moe_jax.load              a run's model, parameters and config, in a notebook
    moe_jax.laws              scaling laws fitted to any table of losses, and plans that follow from them
    moe_jax.config.grid       the axes of a sweep, in config files
    moe_jax.__version__       of the installed package

Everything else may change without notice.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_jax.evaluation.loading import Loaded

__all__ = ["laws", "load"]

# etils.epath would import TensorFlow for gs:// wherever it is installed; training never needs it.
os.environ.setdefault("EPATH_USE_TF", "0")
# gcsfs would keep what it has listed, and not find what other machines write after that. fsspec reads this when it is
# imported.
os.environ.setdefault("FSSPEC_GS", '{"use_listings_cache": false}')


def __getattr__(name: str) -> str:
    """moe_jax.__version__, of the installed package; looked up when asked for."""
    if name == "__version__":
        from importlib import metadata

        return metadata.version("moe_jax")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load(run_folder: str) -> "Loaded":
    """(model, params, config) of a run's newest checkpoint: `load("runs/smoke/runs/n25k-d96k-g1-s0")`, local or gs://.

    Raises UserError where the folder is no run's or holds no whole checkpoint."""
    from moe_jax.evaluation import loading  # here, so that `import moe_jax` stays cheap

    return loading.load(run_folder)
