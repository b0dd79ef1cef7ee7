"""The routing of a run on held-out windows, with its newest checkpoint and with its first parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any

from etils import epath

from moe_jax.config import counts
from moe_jax.config.schema import Config
from moe_jax.data import windows
from moe_jax.data.batches import HeldOut
from moe_jax.data.store import Store
from moe_jax.errors import UserError
from moe_jax.evaluation import loading
from moe_jax.evaluation.routing.observation import Observer
from moe_jax.evaluation.routing.summary import layer_routing
from moe_jax.evaluation.routing.tally import Tally
from moe_jax.evaluation.run_store import open_for, vocabulary_of
from moe_jax.evaluation.without_dropping import restore_without_dropping
from moe_jax.sweep.routing_record import LayerRouting, RoutingRecord
from moe_jax.sweep.rundir import RunDir
from moe_jax.training import initial_weights
from moe_jax.training.step import Trainer, TrainState


def inspect_run(run_folder: str, store_path: str | None = None, sequences: int | None = None) -> RoutingRecord:
    """The routing on a store (default: the run's own) over `sequences` held-out windows (default: the config's),
    rounded down to whole routing groups. Where tokens choose, none is dropped on the way.

    Raises UserError where the folder is no run's, the model is dense, the store has another vocabulary, or its held-out
    part is too short."""
    run = loading.run_of(run_folder)
    config = run.config
    if config.moe is None:
        raise UserError(f"{run_folder}: is a dense model (config.moe = None), which routes nothing")
    store = open_for(run, store_path)
    spell = vocabulary_of(run, store.path).spell
    evaluated = windows.held_out(_with_sequences(config, sequences), store)
    restored = restore_without_dropping(run_folder)
    trainer = restored.trainer
    observer, vocab_size = Observer(trainer), run.counts.vocab_size

    def layers(weights: dict[str, Any]) -> tuple[LayerRouting, ...]:
        return routing_of(observer, weights, evaluated, config, vocab_size, spell)

    return RoutingRecord(
        name=run.name,
        step=restored.step,
        router=config.moe.router,
        top_k=config.moe.top_k,
        capacity=training_capacity(config),
        store={"path": store.path, "sha256": store.info.sha256},
        sequences=evaluated.sequences,
        tokens=evaluated.tokens,
        trained=layers(restored.state.weights),
        initial=layers(_first_state(trainer, config, store).weights),
    )


def _first_state(trainer: Trainer, config: Config, store: Store) -> TrainState:
    """What training began with: the seed's parameters, or those of train.init_from."""
    if config.train.init_from is None:
        return trainer.init(config.seed)
    return initial_weights.first_state(trainer, config, store, print)


def routing_of(
    observer: Observer,
    weights: dict[str, Any],
    evaluated: HeldOut,
    config: Config,
    vocab_size: int,
    spell: Callable[[int], str],
) -> tuple[LayerRouting, ...]:
    """The routing of every layer with these weights. `config` is that of training, whose capacity counts."""
    moe, capacity = config.moe, training_capacity(config)
    drops = capacity if moe.router != "expert_choice" else None
    group_tokens = moe.group_sequences * config.data.sequence_length
    tallies = [Tally(moe.n_experts, vocab_size, group_tokens, drops) for _ in range(config.model.n_layers)]
    for tokens_BxS, chosen_LxBxSxE, entropy_LxBxS in observer.choices(weights, evaluated):
        for tally, chosen_BxSxE, entropy_BxS in zip(tallies, chosen_LxBxSxE, entropy_LxBxS, strict=True):
            tally.add(tokens_BxS.reshape(-1), chosen_BxSxE.reshape(-1, moe.n_experts), entropy_BxS.reshape(-1))
    return tuple(layer_routing(tally, spell) for tally in tallies)


def training_capacity(config: Config) -> int | None:
    """Slots of an expert for one routing group; None where training drops nothing."""
    return None if config.moe.dispatch == "dropless" else counts.capacity(config)


def _with_sequences(config: Config, sequences: int | None) -> Config:
    """The config with this many held-out windows. Raises UserError where they are no whole routing group."""
    if sequences is None:
        return config
    if sequences < (group := config.moe.group_sequences):
        raise UserError(f"--sequences={sequences}: is less than a routing group of {group} sequences")
    return dataclasses.replace(config, eval=dataclasses.replace(config.eval, sequences=sequences))


def write(run_folder: str, routing: RoutingRecord) -> epath.Path:
    """Writes the run's routing.json; gives its path."""
    return RunDir(epath.Path(run_folder)).write_routing(routing)
