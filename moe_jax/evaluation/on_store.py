"""The loss of a run's newest checkpoint on the held-out part of a token store: evaluation.json."""

import dataclasses
from typing import Any

from etils import epath

from moe_jax import files, provenance
from moe_jax.data import windows
from moe_jax.data.store import open_store
from moe_jax.errors import UserError
from moe_jax.evaluation import loading
from moe_jax.training import held_out

NAME = "evaluation.json"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Losses of one checkpoint on one store."""

    name: str  # of the run
    step: int  # of the checkpoint
    tokens: int  # that it was trained on
    store: dict[str, str]  # path and sha256
    sequences: int  # held-out windows
    eval_loss: float  # nats per token
    bits_per_byte: float

    def to_json(self) -> dict[str, Any]:
        """The object of evaluation.json."""
        return dataclasses.asdict(self) | provenance.devices()


def evaluate_run(run_folder: str, store_path: str | None = None, sequences: int | None = None) -> Evaluation:
    """The losses on a store (default: the run's own) over `sequences` held-out windows (default: the config's).

    Raises UserError where the folder is no run's, the store has another vocabulary, or its held-out part is too
    short."""
    run = loading.run_of(run_folder)
    store = open_store(store_path or run.store.path)
    if store.info.vocabulary != run.store.vocabulary:
        raise UserError(f"--store={store.path}: has another vocabulary than the store that the run was trained on")
    if store_path is None and store.info.sha256 != run.store.sha256:
        raise UserError(f"{store.path}: is another store than the one the run was trained on; name it with --store")
    config = run.config
    if sequences is not None:
        config = dataclasses.replace(config, eval=dataclasses.replace(config.eval, sequences=sequences))
    evaluated = windows.held_out(config, store)
    restored = loading.restore(run_folder)
    values = held_out.evaluate(restored.trainer, restored.state.weights, evaluated)
    return Evaluation(
        name=run.name,
        step=restored.step,
        tokens=restored.step * config.batch_tokens,
        store={"path": store.path, "sha256": store.info.sha256},
        sequences=evaluated.sequences,
        **values,
    )


def write(run_folder: str, evaluation: Evaluation) -> epath.Path:
    """Writes the run's evaluation.json; gives its path."""
    path = epath.Path(run_folder) / NAME
    files.write_sealed(path, evaluation.to_json())
    return path
