"""The training batches and held-out windows that a config asks of a store. A window is L + 1 tokens (batches.py)."""

from collections.abc import Callable
from typing import Any

from moe_jax.config import held_out_stores
from moe_jax.config.schema import Config
from moe_jax.data.batches import Batches, HeldOut
from moe_jax.data.store import Store, open_store
from moe_jax.errors import UserError


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
    group = _group(config)
    return HeldOut(store, config.data.sequence_length, config.eval.sequences // group * group)


def other_held_out(config: Config, store: Store, opened: Callable[[str], Store] = open_store) -> dict[str, HeldOut]:
    """The held-out windows of each store of eval.stores, by name: `eval.sequences`, or as many as it holds, rounded
    down to whole routing groups. `store` is the run's own.

    Raises UserError where one is missing or damaged, has another vocabulary, or holds no whole group."""
    found = {}
    for name, folder in held_out_stores.by_name(config.eval.stores).items():
        try:
            found[name] = of_other_store(config, store.info.vocabulary, opened(folder))
        except UserError as e:
            raise UserError(f"config.eval.stores: {name}: {e}") from e
    return found


def of_other_store(config: Config, vocabulary: dict[str, Any], other: Store) -> HeldOut:
    """One of `other_held_out`. `vocabulary`: of the store that the run learns from, as its store.json describes it."""
    if other.info.vocabulary != vocabulary:
        raise UserError(f"{other.path} has another vocabulary than the store that the run is trained on")
    group, length = _group(config), config.data.sequence_length
    held = (other.info.tokens["heldout"] - 1) // length
    return HeldOut(other, length, max(min(config.eval.sequences, held) // group, 1) * group)


def _group(config: Config) -> int:
    """Sequences that are routed together."""
    return 1 if config.moe is None else config.moe.group_sequences
