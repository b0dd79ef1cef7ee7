"""The choices of every layer on held-out windows, batch by batch, on the host.

B  sequences of a batch    E  experts
S  positions               L  layers
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from moe_jax.data.batches import HeldOut
from moe_jax.training.put import put_windows
from moe_jax.training.step import Trainer

CHOICES_BYTES = 2**28  # of a batch's choices, L·B·S·E, at most where the mesh allows it


class Observed(NamedTuple):
    """The choices of one batch's tokens."""

    tokens_BxS: np.ndarray
    chosen_LxBxSxE: np.ndarray  # bool: whether an expert and a token go together, before any is dropped
    entropy_LxBxS: np.ndarray  # of the router's distribution, nats, mean over each token's routing group


class Observer:
    """What a trainer's model chooses, with any weights of its shape; compiled once."""

    def __init__(self, trainer: Trainer):
        self._trainer = trainer

        def observe(weights, tokens_BxS):
            model = trainer.model(weights)
            model.blocks.moe.shows_choices = True
            _, statistics = model(tokens_BxS)
            return statistics["chosen_BxSxE"], statistics["entropy_BxS"]  # of each layer: L in front

        shardings = trainer.shardings.weights, trainer.evaluate_sharding
        self._observe = jax.jit(observe, in_shardings=shardings)

    def choices(self, weights: dict[str, Any], windows: HeldOut) -> Iterator[Observed]:
        """The choices on all windows. The last batch is filled up with windows that are then left out: routing groups
        are whole, so they touch nothing."""
        B, S = self._batch_sequences(windows.sequence_length), windows.sequence_length
        for first in range(0, windows.sequences, B):
            held = np.arange(first, min(first + B, windows.sequences))
            tokens_BxS = np.zeros((B, S), np.int32)
            tokens_BxS[: len(held)] = windows.batch(held)[:, :-1]
            on_devices = put_windows(tokens_BxS.__getitem__, (B, S), self._trainer.evaluate_sharding)
            chosen_LxBxSxE, entropy_LxBxS = jax.device_get(self._observe(weights, on_devices))
            n = len(held)
            yield Observed(tokens_BxS[:n], chosen_LxBxSxE[:, :n], entropy_LxBxS[:, :n])

    def _batch_sequences(self, S: int) -> int:
        """B: a microbatch of training, or as many whole routing groups a device as keep the choices small."""
        config, moe = self._trainer.config, self._trainer.config.moe
        B = config.train.batch_sequences // config.train.microbatches
        if moe.router == "expert_choice":  # the mesh fits its groups as they are in a microbatch
            return B
        least = self._trainer.layout.batch_parts * moe.group_sequences
        fitting = CHOICES_BYTES // (config.model.n_layers * S * moe.n_experts)
        return min(B, max(least, fitting // least * least))
