"""Loss on the held-out windows: fixed windows, fixed groups, so the same from the same parameters on every mesh."""

import math
from typing import Any

import jax
import numpy as np

from moe_jax.data.batches import HeldOut
from moe_jax.training.put import put_windows
from moe_jax.training.step import Trainer


def evaluate(trainer: Trainer, weights: dict[str, Any], windows: HeldOut) -> dict[str, float]:
    """`eval_loss` in nats per token and `bits_per_byte`, over all windows.

    The last batch is filled up with windows of zeros that are not counted: groups are whole, so they touch nothing. A
    batch's losses are read after the next batch is launched: the device never waits for the host."""
    B = trainer.config.train.batch_sequences // trainer.config.train.microbatches
    shape, sharding = (B, windows.sequence_length + 1), trainer.evaluate_sharding
    total, pending = 0.0, None

    def add(first: int, loss_B: jax.Array) -> None:
        nonlocal total
        total += np.asarray(loss_B, np.float64)[: windows.sequences - first].sum()

    for first in range(0, windows.sequences, B):

        def read(rows_R: np.ndarray, first: int = first) -> np.ndarray:
            asked_R = first + rows_R
            held = asked_R[asked_R < windows.sequences]
            read_RxS1 = np.zeros((len(asked_R), shape[1]), np.int32)
            read_RxS1[: len(held)] = windows.batch(held)
            return read_RxS1

        loss_B = trainer.evaluate(weights, put_windows(read, shape, sharding))
        if pending is not None:
            add(*pending)
        pending = first, loss_B
    if pending is not None:
        add(*pending)
    return {
        "eval_loss": total / windows.tokens,
        "bits_per_byte": total / math.log(2) / windows.bytes,
    }
