"""A run's model from its folder: what `moe_jax.load` and `moe-jax evaluate` stand on.

A run means the same on every mesh, so it is loaded onto whatever devices are here."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from moe_jax import config as config_lib
from moe_jax import config_fields, sharding
from moe_jax.checkpoint import Checkpoints
from moe_jax.config import Config
from moe_jax.errors import UserError
from moe_jax.files import DamagedFile
from moe_jax.model.transformer import Transformer
from moe_jax.rundir import RunDir
from moe_jax.trainer import Trainer, TrainState


class Loaded(NamedTuple):
    """`model(tokens_BxS)` gives the hidden states and statistics, as in Transformer; B as the mesh allows."""

    model: Transformer
    params: dict[str, Any]  # all that the model computes with
    config: Config


@dataclasses.dataclass(frozen=True)
class Restored:
    """A run's newest whole checkpoint on this machine's devices."""

    trainer: Trainer
    state: TrainState
    step: int


def load(run_folder: str) -> Loaded:
    """Model, parameters and config of the newest checkpoint of a run, `load("runs/smoke/runs/n25k-d96k-g1-s0")`.

    Raises UserError where the folder is no run's or holds no whole checkpoint."""
    restored = restore(run_folder)
    params = restored.state.weights
    return Loaded(restored.trainer.model(params), params, restored.trainer.config)


def restore(run_folder: str, devices: Sequence[Any] | None = None, say: Callable[[str], None] = print) -> Restored:
    """As `load`, onto `devices` (default: all here, as many as fit)."""
    run, folder = run_of(run_folder), RunDir(epath.Path(run_folder))
    mesh = fitting_mesh(run.config, jax.devices() if devices is None else devices)
    trainer = Trainer(run.config, run.vocabulary_size, sharding.Layout(mesh), run.end_of_document)
    checkpoints = Checkpoints(folder.checkpoints, run.config.checkpoint.keep, say)
    try:
        found = checkpoints.restore(trainer.abstract_state)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{run_folder}: has no whole checkpoint yet; the run saves one at its end at the latest")
    return Restored(trainer, *found)


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What run.json says a run's parameters are: of which model, trained on which store."""

    name: str
    config: Config
    vocabulary_size: int  # the model's
    store_path: str
    store_sha256: str
    vocabulary: dict[str, Any]  # the store's
    end_of_document: int


def run_of(run_folder: str) -> TrainedRun:
    """Raises UserError where the folder is no run's, DamagedFile where run.json is not what a run writes."""
    folder = RunDir(epath.Path(run_folder))
    run = folder.run()
    if run is None:
        raise UserError(f"{run_folder}: is not the folder of a run (no run.json); name W/runs/NAME")
    try:
        V, store = run["counts"]["vocabulary_size"], run["store"]
        texts, ids = (store["path"], store["sha256"], run["name"]), (V, store["end_of_document"])
        if not all(isinstance(t, str) for t in texts) or not all(type(i) is int and i >= 0 for i in ids):
            raise TypeError(f"{texts + ids}")
        return TrainedRun(
            run["name"], config_fields.from_dict(run["config"]), V, store["path"], store["sha256"],
            dict(store["vocabulary"]), store["end_of_document"],
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, UserError) as e:
        raise DamagedFile(f"{folder.path / 'run.json'}: is damaged ({type(e).__name__}: {e})") from e


def fitting_mesh(config: Config, devices: Sequence[Any]) -> jax.sharding.Mesh:
    """The largest mesh over the first of `devices` that the config's batch, experts and groups fit."""
    n_experts = 1 if config.moe is None else config.moe.n_experts
    for n in range(len(devices), 0, -1):
        expert = math.gcd(n_experts, n)
        mesh = sharding.make_mesh(config_lib.MeshConfig(replica=1, data=n // expert, expert=expert), devices[:n])
        try:
            sharding.check_fit(config, mesh)
        except UserError:
            if n == 1:  # a config that fits no device is refused before it is one
                raise
        else:
            break
    return mesh
