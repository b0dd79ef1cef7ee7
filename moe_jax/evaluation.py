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
    B = trainer.config.train.batch_sequences // trainer.config.train.microbatches
    shape, sharding = (B, windows.sequence_length + 1), trainer.evaluate_sharding
    total = 0.0
    for first in range(0, windows.sequences, B):

        def part(index: tuple[slice, ...], first: int = first) -> np.ndarray:
            """A device's rows; the host reads no others."""
            asked = first + np.arange(B)[index[0]]
            held = asked[asked < windows.sequences]
            rows = np.zeros((len(asked), shape[1]), np.int32)
            rows[: len(held)] = windows.batch(held)
            return rows

        loss_B = np.asarray(trainer.evaluate(weights, jax.make_array_from_callback(shape, sharding, part)), np.float64)
        total += loss_B[: windows.sequences - first].sum()
    return {
        "eval_loss": total / windows.tokens,
        "bits_per_byte": total / math.log(2) / windows.bytes,
    }
