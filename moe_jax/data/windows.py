"""The training batches and held-out windows that a config asks of a store. A window is L + 1 tokens (batches.py)."""

from moe_jax.config.schema import Config
from moe_jax.data.batches import Batches, HeldOut
from moe_jax.data.store import Store


def training_batches(config: Config, store: Store) -> Batches:
    """The run's training batches. Raises UserError if the run asks for more tokens than the store holds."""
    data = config.data
    batches = Batches(
        store, data.sequence_length, config.train.batch_sequences, config.seed, data.repeat, windows=data.windows
    )
    batches.check(config.steps * config.batch_tokens)
    return batches


def held_out(config: Config, store: Store) -> HeldOut:
    """The `eval.sequences` held-out windows, rounded down to whole routing groups. Raises UserError if the store holds
    fewer."""
    group = 1 if config.moe is None else config.moe.group_sequences
    return HeldOut(store, config.data.sequence_length, config.eval.sequences // group * group)
