"""Loss on the held-out windows: fixed windows, fixed groups, so the same from the same parameters on every mesh."""

import math
from typing import Any

import jax
import numpy as np

from moe_jax.data.batches import HeldOut
from moe_jax.trainer import Trainer


def evaluate(trainer: Trainer, weights: dict[str, Any], windows: HeldOut) -> dict[str, float]:
    """`eval_loss` in nats per token and `bits_per_byte`, over all windows.

    The last batch is filled up with windows of zeros that are not counted: groups are whole, so they touch nothing."""
    batch = trainer.config.train.batch_sequences // trainer.config.train.microbatches
    sharding = trainer.evaluate_sharding
    total = 0.0
    for first in range(0, windows.sequences, batch):
        read = windows.batch(slice(first, first + batch))
        padded = np.zeros((batch, read.shape[1]), read.dtype)
        padded[: len(read)] = read
        on_device = jax.make_array_from_callback(padded.shape, sharding, lambda index, padded=padded: padded[index])
        loss_B = np.asarray(trainer.evaluate(weights, on_device), np.float64)
        total += loss_B[: len(read)].sum()
    return {
        "eval_loss": total / windows.tokens,
        "bits_per_byte": total / math.log(2) / windows.bytes,
    }
