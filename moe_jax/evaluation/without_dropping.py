"""A run restored so that no token is dropped: what one token gets then depends on no other token's choice."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from moe_jax.config.schema import Config
from moe_jax.evaluation import loading
from moe_jax.evaluation.loading import Restored
from moe_jax.sweep.run_record import RunRecord
from moe_jax.training.step import Trainer


def restore_without_dropping(
    run_folder: str, devices: Sequence[Any] | None = None, say: Callable[[str], None] = print
) -> Restored:
    """A run's newest checkpoint on `devices` (default: this machine's), with dropless dispatch where tokens choose
    their experts. `say` is told of checkpoints that are skipped.

    Raises as loading.restore, and where a router of the user's own fills slots itself."""
    run = loading.run_of(run_folder)
    return with_config(loading.restore(run_folder, devices, say), run, without_dropping(run.config))


def with_config(restored: Restored, run: RunRecord, config: Config) -> Restored:
    """The restored run under another config with the same parameters."""
    trainer = Trainer(config, run.counts.vocab_size, restored.trainer.layout, run.store.end_of_document)
    return dataclasses.replace(restored, trainer=trainer)


def without_dropping(config: Config) -> Config:
    """The config with dropless dispatch; dense models, expert choice and the oracle `dense` drop nothing or stay."""
    moe = config.moe
    if moe is None or moe.router == "expert_choice" or moe.dispatch != "slots":
        return config
    return dataclasses.replace(config, moe=dataclasses.replace(moe, dispatch="dropless", batch_prioritised=False))
