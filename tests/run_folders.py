"""Folders of runs with random weights, made without training."""

import time

import jax
import numpy as np
from etils import epath

from moe_jax import provenance
from moe_jax.config import counts, identity
from moe_jax.config.schema import Config
from moe_jax.data.store import read_info
from moe_jax.sweep.run_record import RunRecord, RunStore
from moe_jax.sweep.rundir import RunDir
from moe_jax.training.checkpoint import Checkpoints
from moe_jax.training.step import Trainer
from tests.models import trainer


def random_params(t: Trainer, seed: int = 0) -> dict:
    """Parameters (numpy) that are nowhere 0 or 1, norms too, of a scale that shows."""
    rng = np.random.default_rng(seed)

    def random(path, leaf):
        mean = 1 if path[-1].key == "scale" else 0
        return (mean + 0.3 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(random, t.abstract_state.params)


def make_run(folder, config: Config, store: str, seed: int = 0, step: int = 3) -> tuple[RunRecord, dict]:
    """A run folder with a checkpoint of this step; (its record, its parameters)."""
    info = read_info(store)
    V = config.model.vocab_size or info.vocab_size
    t = trainer(config, vocab_size=V)
    params = random_params(t, seed)
    run = RunRecord(
        name=folder.name,
        began=time.time(),
        attempt=1,
        config=config,
        config_hash=identity.config_hash(config, info.sha256, V),
        counts=counts.count_run(config, V),
        store=RunStore(str(store), info.sha256, info.vocab_size, info.vocabulary, info.end_of_document),
        mesh=dict(t.layout.mesh.shape),
        **provenance.devices(),
        git_commit=None,
        versions={},
    )
    checkpoints = Checkpoints(epath.Path(folder) / "checkpoints", run.config_hash, 2)
    blank = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), t.abstract_state)
    state = blank.replace(step=np.int32(step), params=params)
    checkpoints.save(jax.device_put(state, t.shardings), step)
    checkpoints.close()
    RunDir(epath.Path(folder)).write_run_record(run)
    return run, params
