"""Restores a run's model from its folder, for `moe_jax.load` and `moe-jax evaluate`.

A run means the same on every mesh, so it is loaded onto whatever devices are here."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from moe_jax.config import schema
from moe_jax.config.schema import Config
from moe_jax.errors import UserError
from moe_jax.model import sharding
from moe_jax.model.transformer import Transformer
from moe_jax.sweep.run_record import RunRecord
from moe_jax.sweep.rundir import RunDir
from moe_jax.training.checkpoint import Checkpoints
from moe_jax.training.step import Trainer, TrainState


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
    """Restores a run's newest checkpoint onto `devices` (default: all of this machine's, as many as fit)."""
    run, folder = run_of(run_folder), RunDir(epath.Path(run_folder))
    mesh = fitting_mesh(run.config, jax.devices() if devices is None else devices)
    trainer = Trainer(run.config, run.counts.vocab_size, sharding.Layout(mesh), run.store.end_of_document)
    checkpoints = Checkpoints(folder.checkpoints, run.config_hash, run.config.checkpoint.keep, say)
    try:
        found = checkpoints.restore(trainer.abstract_state)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{run_folder}: has no whole checkpoint of this run; it saves one at its end at the latest")
    return Restored(trainer, *found)


def run_of(run_folder: str) -> RunRecord:
    """The run.json of a run's folder. Raises UserError if there is none, DamagedFile if a run did not write it."""
    run = RunDir(epath.Path(run_folder)).run_record()
    if run is None:
        raise UserError(f"{run_folder}: is not the folder of a run (no run.json); name W/runs/NAME")
    return run


def fitting_mesh(config: Config, devices: Sequence[Any]) -> jax.sharding.Mesh:
    """The largest mesh over the first of `devices` that the config's batch, experts and groups fit."""
    n_experts = 1 if config.moe is None else config.moe.n_experts
    for n in range(len(devices), 0, -1):
        expert = math.gcd(n_experts, n)
        mesh = sharding.make_mesh(schema.MeshConfig(replica=1, data=n // expert, expert=expert), devices[:n])
        try:
            sharding.check_fit(config, mesh)
        except UserError:
            if n == 1:  # no valid config gets here: each fits one device
                raise
        else:
            break
    return mesh
