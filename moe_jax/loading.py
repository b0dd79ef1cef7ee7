"""A run's model from its folder: what `moe_jax.load` and `moe-jax evaluate` stand on.

A run means the same on every mesh, so it is loaded onto whatever devices are here."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from moe_jax import config as config_lib
from moe_jax import sharding
from moe_jax.checkpoint import Checkpoints
from moe_jax.config import Config
from moe_jax.errors import UserError
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

    run: dict[str, Any]  # run.json
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
    config = config_lib.from_dict(run["config"])
    mesh = fitting_mesh(config, jax.devices() if devices is None else devices)
    trainer = Trainer(config, run["counts"]["vocabulary_size"], sharding.Layout(mesh), run["store"]["end_of_document"])
    checkpoints = Checkpoints(folder.checkpoints, config.checkpoint.keep, say)
    try:
        found = checkpoints.restore(trainer.abstract_state)
    finally:
        checkpoints.close()
    if found is None:
        raise UserError(f"{run_folder}: has no whole checkpoint yet; the run saves one at its end at the latest")
    return Restored(run, trainer, *found)


def run_of(run_folder: str) -> dict[str, Any]:
    """run.json. Raises UserError where there is none."""
    run = RunDir(epath.Path(run_folder)).run()
    if run is None:
        raise UserError(f"{run_folder}: is not the folder of a run (no run.json); name W/runs/NAME")
    return run


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
