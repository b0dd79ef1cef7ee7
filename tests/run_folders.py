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
    """Parameters that are nowhere 0 or 1, norms too."""
    rng = np.random.default_rng(seed)
    params = jax.device_get(t.init(seed).params)
    return jax.tree.map(lambda a: (a + 0.2 * rng.standard_normal(a.shape)).astype(a.dtype), params)


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
    checkpoints.save(t.init(seed).replace(step=jax.numpy.int32(step), params=params), step)
    checkpoints.close()
    RunDir(epath.Path(folder)).write_run_record(run)
    return run, params
