"""The loss of a run's newest checkpoint on the held-out part of a token store."""

import dataclasses
import re

from etils import epath

from moe_jax.config import held_out_stores
from moe_jax.data import windows
from moe_jax.data.batches import HeldOut
from moe_jax.data.store import Store
from moe_jax.errors import UserError
from moe_jax.evaluation import loading
from moe_jax.evaluation.run_store import open_for
from moe_jax.model.routers import registry
from moe_jax.sweep.evaluation_record import EvaluationRecord, check_name
from moe_jax.sweep.run_record import RunRecord
from moe_jax.training import held_out


def evaluate_run(
    run_folder: str, store_path: str | None = None, sequences: int | None = None, name: str | None = None
) -> EvaluationRecord:
    """The losses on a store (default: the run's own) over `sequences` held-out windows (default: the config's), with
    eval.dispatch. `name`: of the store (default: made of its folder's name).

    Raises UserError where the folder is no run's, the store has another vocabulary, its held-out part is too short, or
    the name cannot be part of a column."""
    run = loading.run_of(run_folder)
    of = _name(store_path or run.store.path, name)
    store = open_for(run, store_path)
    evaluated, dispatch = _windows(run, store, sequences), registry.evaluation_dispatch(run.config)
    restored = loading.restore(run_folder)
    return held_out.store_record(
        restored.trainer, restored.state.weights, evaluated, dispatch, run=run.name, of=of, step=restored.step
    )


def _windows(run: RunRecord, store: Store, sequences: int | None) -> HeldOut:
    """So many held-out windows; as training has of eval.stores, where no number is given."""
    config = run.config
    if sequences is None:
        return windows.of_other_store(config, run.store.vocabulary, store)
    asked = dataclasses.replace(config, eval=dataclasses.replace(config.eval, sequences=sequences))
    return windows.held_out(asked, store)


def _name(store_path: str, given: str | None) -> str:
    """The store's name in columns. Raises UserError where there is none."""
    folder = epath.Path(store_path).name
    name = re.sub(r"[^a-z0-9]+", "_", folder.lower()).strip("_")[:64] if given is None else given
    if name in held_out_stores.TAKEN:
        raise UserError(f"--name={name}: eval_loss_{name} is another column; choose another name")
    if given is None and not name:
        raise UserError(f"--store={store_path}: its folder gives no name for columns; give one with --name")
    try:
        return check_name(name)
    except UserError as e:
        raise UserError(f"--name={e}") from e
