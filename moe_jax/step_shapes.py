"""Which runs share one train step: everything in a config that enters the compile, and nothing else.

D, learning rate, warm-up and seed are values of a step (trainer.py); the store, checkpoints and logging are around it.
A field that is not listed here is taken to enter: a new one may cost a compile too many, but never a wrong one.
"""

import dataclasses
import hashlib
import json
from typing import Any

from moe_jax import config_fields
from moe_jax.config import Config

_NOT_COMPILED = {
    "": ("seed", "tensorboard", "wandb", "eval", "checkpoint", "profile", "mesh"),
    "data": ("store", "mixture", "vocabulary", "windows", "repeat", "cache"),
    "train": ("tokens", "log_every_steps"),
    "optim": ("learning_rate", "warmup_tokens", "warmup_fraction", "decay_fraction"),
}


@dataclasses.dataclass(frozen=True)
class StepShape:
    """What a train step is compiled from, but the machine and the mesh."""

    config: Config  # of one of the runs that have it
    vocabulary_size: int

    @property
    def key(self) -> str:
        """Equal for runs of one shape; a mesh is none of it, `train.microbatches` is."""
        values = config_fields.to_dict(self.config)
        for group, fields in _NOT_COMPILED.items():
            owner: dict[str, Any] = values[group] if group else values
            for field in fields:
                del owner[field]
        return json.dumps([values, self.vocabulary_size], sort_keys=True)

    @property
    def id(self) -> str:
        """16 hex digits of the key, for files."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:16]
