"""A config's windows of a store: what a run trains on and is evaluated on. Both refuse what the store cannot give."""

from moe_jax.config import Config
from moe_jax.data.batches import Batches, HeldOut
from moe_jax.data.store import Store


def training_batches(config: Config, store: Store) -> Batches:
    """The run's batches. Raises UserError where the run asks for more tokens than the store holds."""
    data = config.data
    batches = Batches(
        store, data.sequence_length, config.train.batch_sequences, config.seed, data.repeat, windows=data.windows
    )
    batches.check(config.steps * config.batch_tokens)
    return batches


def held_out(config: Config, store: Store) -> HeldOut:
    """The held-out windows, cut to whole routing groups. Raises UserError where the store holds fewer."""
    group = 1 if config.moe is None else config.moe.group_sequences
    return HeldOut(store, config.data.sequence_length, config.eval.sequences // group * group)
