"""The first weights of a run from another run's checkpoint, or from an import; the optimizer begins anew."""

from collections.abc import Callable
from typing import Any, NoReturn

import jax

from moe_jax.config.checks import refuse
from moe_jax.config.schema import Config
from moe_jax.data.store import Store
from moe_jax.sweep import initial_weights
from moe_jax.training.checkpoint import Checkpoints
from moe_jax.training.step import Trainer, TrainState


def first_state(trainer: Trainer, config: Config, store: Store, say: Callable[[str], None]) -> TrainState:
    """The state before step 0: the seed's, but for the weights, which are those of config.train.init_from.

    Routers' biases come along where both models have them.

    Raises UserError where the checkpoint is gone, damaged or another one, or where the shapes do not fit, with the
    first parameter whose shape does not."""
    folder, step = initial_weights.of_digest(config)
    run = folder.run_record()
    if run is None:
        _refuse(config, "has no run.json, which says what model it is")
    source = Trainer(run.config, run.counts.vocab_size, trainer.layout, run.store.end_of_document)
    _check_shapes(config, source.abstract_state.params, trainer.abstract_state.params)
    checkpoints = Checkpoints(folder.checkpoints, run.config_hash, run.config.checkpoint.keep, say)
    try:
        found = checkpoints.restore(source.abstract_state, at_most=step)
    finally:
        checkpoints.close()
    if found is None or found[1] != step:
        _refuse(config, f"its checkpoint of step {step} is damaged; name another step, or put it back")
    if run.store.vocabulary != store.info.vocabulary:
        say(f"{config.train.init_from} was trained on another vocabulary than that of {store.path}")
    say(f"begins with the weights of {config.train.init_from} at step {step}")
    state = trainer.init(config.seed)
    params = jax.device_put(found[0].params, trainer.shardings.params)
    router = state.router
    if jax.tree.structure(router) == jax.tree.structure(found[0].router):
        router = jax.device_put(found[0].router, trainer.shardings.router)
    return state.replace(params=params, router=router)


def _check_shapes(config: Config, there: Any, here: Any) -> None:
    """Raises UserError for the first parameter that is not the same in both models."""
    found, wanted = _by_name(there), _by_name(here)
    for name in [*wanted, *found]:
        if name not in found:
            _refuse(config, f"it has no parameter {name}, which this model has")
        if name not in wanted:
            _refuse(config, f"it has a parameter {name}, which this model has not")
        if found[name] != wanted[name]:
            _refuse(config, f"its parameter {name} is {found[name]}, and this model's is {wanted[name]}")


def _by_name(params: Any) -> dict[str, str]:
    flat, _ = jax.tree_util.tree_flatten_with_path(params)
    return {".".join(str(k.key) for k in path): f"{leaf.dtype} of shape {leaf.shape}" for path, leaf in flat}


def _refuse(config: Config, rule: str) -> NoReturn:
    refuse("train.init_from", config.train.init_from, rule)
