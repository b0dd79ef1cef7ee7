"""A folder of transformers -> the folder of a run at step 0: run.json and a checkpoint of its weights.

`moe_jax.load`, `moe-jax evaluate`, `moe-jax export` and `train.init_from` take it. How it would be trained is as
configs/common.py says, since a folder of transformers does not say it."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
from etils import epath

from moe_jax import files, provenance, records
from moe_jax.config import config_file, counts, identity
from moe_jax.config.schema import Config
from moe_jax.data.store import read_info
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.errors import UserError
from moe_jax.evaluation import loading
from moe_jax.evaluation.huggingface import config_values, tensors, tokenizer, weights
from moe_jax.evaluation.huggingface.architectures import Architecture
from moe_jax.evaluation.huggingface.exported import ORIGIN
from moe_jax.model import sharding
from moe_jax.sweep.run_record import RunRecord, RunStore
from moe_jax.sweep.rundir import RunDir
from moe_jax.training.checkpoint import Checkpoints
from moe_jax.training.step import Trainer


@dataclasses.dataclass(frozen=True)
class Imported:
    """What was written."""

    name: str
    class_name: str
    parameters: int
    config_hash: str


def import_folder(
    source: str, out: str, store: str | None = None, overrides: Sequence[str] = (), say: Callable[[str], None] = print
) -> Imported:
    """Writes the run folder `out`, whole or not at all, on this machine's first device. `store` names the token store
    whose ids the model speaks (default: what an export noted, else the vocabulary of the folder's tokenizer.json).
    `overrides` are flags of fields that the folder does not fix, `--config.data.sequence_length=512`.

    Raises UserError where the folder does not hold one of the architectures whole; OSError, as of a full disk."""
    folder = epath.Path(source)
    architecture, values = config_values.read(folder)
    speaks = _store(folder, store)
    config = _config(architecture, values, folder, speaks, overrides)
    V = config.model.vocab_size
    if speaks.vocab_size > V:
        raise UserError(f"{speaks.path}: has token ids up to {speaks.vocab_size:,}, and {source} has {V:,}")
    mesh = loading.fitting_mesh(config, jax.devices()[:1])
    trainer = Trainer(config, V, sharding.Layout(mesh), speaks.end_of_document)
    places = weights.places(architecture, config)
    params = weights.parameters(tensors.read(folder), places, trainer.abstract_state.params, source)
    state = trainer.init(0).replace(params=jax.device_put(params, trainer.shardings.params))
    run = _record(epath.Path(out).name, config, speaks, mesh)
    with files.new_folder(epath.Path(out)) as made:
        checkpoints = Checkpoints(made / "checkpoints", run.config_hash, 1, say)
        try:
            checkpoints.save(state, 0)
        finally:
            checkpoints.close()
        RunDir(made).write_run_record(run)
    return Imported(run.name, architecture.class_name, run.counts.n_total, run.config_hash)


def _config(
    a: Architecture, values: dict[str, Any], folder: epath.Path, store: RunStore, overrides: Sequence[str]
) -> Config:
    fixed = config_values.overrides(a, values, folder / "config.json")
    longest = fixed["data.sequence_length"]
    given = [flag.removeprefix("--config.").partition("=")[0] for flag in overrides]
    for field in given:
        if field in fixed and field != "data.sequence_length":
            raise UserError(f"--config.{field}: {folder / 'config.json'} fixes it, as {fixed[field]!r}")
    flags = [f"--config.{field}={value!r}" for field, value in fixed.items()]
    if not a.moe:
        flags.append("--config.moe=None")
    flags += [f"--config.data.store={store.path!r}", "--config.mesh.data=-1", "--config.mesh.expert=1", *overrides]
    config = config_file.load(["--config=configs/common.py", *flags]).config
    if config.data.sequence_length > longest:
        raise UserError(
            f"--config.data.sequence_length={config.data.sequence_length}: {folder} has {longest} positions at most"
        )
    return config


def _store(folder: epath.Path, store: str | None) -> RunStore:
    """The token store, or the vocabulary alone, whose ids the model speaks."""
    noted = None
    try:
        noted = records.read(RunStore, files.read_sealed(folder / ORIGIN).get("store") or {})
    except FileNotFoundError:
        pass
    except UserError as e:
        raise UserError(f"{folder / ORIGIN}: is damaged ({e}); remove it, and name the token store with --store") from e
    if store is not None:
        info = read_info(store)
        if noted is not None and noted.vocabulary != info.vocabulary:
            raise UserError(f"--store={store}: has another vocabulary than the one that {folder} was trained on")
        return RunStore(store, info.sha256, info.vocab_size, info.vocabulary, info.end_of_document)
    if noted is not None:
        return noted
    path = folder / tokenizer.FILE
    if not path.exists():
        raise UserError(f"{folder}: has no {tokenizer.FILE}; name the token store whose ids it speaks with --store")
    found = TokenizerJson.read(str(path))
    return RunStore("", "", found.size, found.describe(), found.end_of_document)


def _record(name: str, config: Config, store: RunStore, mesh: jax.sharding.Mesh) -> RunRecord:
    V = config.model.vocab_size
    return RunRecord(
        name=name,
        began=time.time(),
        attempt=0,
        config=config,
        config_hash=identity.config_hash(config, store.sha256, V),
        counts=counts.count_run(config, V),
        store=store,
        mesh=dict(mesh.shape),
        **provenance.devices(),
        git_commit=provenance.git_commit(),
        versions=provenance.versions(),
    )
