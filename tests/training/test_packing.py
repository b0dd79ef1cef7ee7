"""Runs that train together are the runs alone: the same losses, files and results, whatever happens to one of them."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from moe_jax import errors
from moe_jax.config import config_file
from moe_jax.config.cell import Cell
from moe_jax.model import sharding
from moe_jax.sweep import from_config, jobs
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import compile_cache, loop, optimizer
from moe_jax.training.checkpoint import Checkpoints
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options
from moe_jax.training.program import Pack
from moe_jax.training.step import Trainer
from tests.conftest import ROOT, child_environment
from tests.models import END_OF_DOCUMENT, EXPERT_CHOICE, OPTIMIZERS, VOCABULARY, config, put, trainer, windows

RATES = (1e-3, 3e-3, 1e-2, 3e-2)


def losses(overrides, steps, packed):
    """losses_nxsteps of runs that differ in seed and learning rate: packed on eight devices, or each alone on one."""
    configs = [config(*overrides, f"seed={i % 2}", f"optim.learning_rate={r}") for i, r in enumerate(RATES)]
    c, n = configs[0], len(configs)
    batches = [[windows(c, 100 * (i % 2) + step) for i in range(n)] for step in range(steps)]
    if not packed:
        t, out = trainer(c), []
        for i, one in enumerate(configs):
            state = t.init(one.seed)
            for step in range(steps):
                state, metrics = t.step(state, put(t, batches[step][i]), optimizer.schedule_of(one))
                out.append(float(metrics["loss"]))
        return np.reshape(out, (n, steps))
    mesh_config = dataclasses.replace(c.mesh, data=2, expert=2)
    mesh = sharding.make_packed_mesh(dataclasses.replace(c, mesh=mesh_config), jax.devices(), n)
    assert dict(mesh.shape) == {"pack": 2, "replica": 1, "data": 2, "expert": 2}
    t = Trainer(c, VOCABULARY, sharding.Layout(mesh), END_OF_DOCUMENT)
    pack = Pack(t, n)
    state = pack.join([t.init(one.seed) for one in configs])
    schedules = pack.schedule(configs)
    out = []
    for step in range(steps):
        stacked = np.stack(batches[step])[:, None]
        state, metrics = pack.step(state, jax.device_put(stacked, pack.batch_sharding), schedules)
        out.append(np.asarray(metrics["loss"], np.float64))
    assert pack.step._cache_size() == 1
    return np.stack(out, 1)


@pytest.mark.parametrize(
    "overrides",
    [(), *(pytest.param(o, marks=pytest.mark.slow) for o in (EXPERT_CHOICE, *list(OPTIMIZERS.values())[1:]))],
)
def test_the_first_losses_are_those_of_the_runs_alone(overrides):
    alone, together = (losses(overrides, 10, packed) for packed in (False, True))
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert len({tuple(row) for row in together.tolist()}) == len(RATES)


_LONG = """
import json, sys
from tests.training.test_packing import losses
overrides = ("model.compute_dtype=float64", "train.tokens=25600", *json.loads(sys.argv[1]))
print(json.dumps([losses(overrides, 100, packed).tolist() for packed in (False, True)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), EXPERT_CHOICE])
def test_a_hundred_steps_in_float64_are_those_of_the_runs_alone(overrides):
    """In float32 a routing near-tie flips sooner or later, as between meshes."""
    command = [sys.executable, "-c", _LONG, json.dumps(overrides)]
    environment = child_environment(8, JAX_ENABLE_X64="true")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    alone, together = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(together, alone, rtol=1e-10)


def test_the_pack_takes_as_many_parts_as_divide_runs_and_devices():
    c = config()
    shapes = {n: sharding.make_packed_mesh(c, jax.devices(), n).shape["pack"] for n in (1, 2, 3, 4, 6, 8)}
    assert shapes == {1: 1, 2: 2, 3: 1, 4: 4, 6: 2, 8: 8}
    with pytest.raises(errors.UserError, match="must divide the 16 experts"):
        sharding.make_packed_mesh(dataclasses.replace(c, mesh=dataclasses.replace(c.mesh, expert=3)), None, 2)


FLAGS = [
    "--config=configs/smoke.py:tiny", "--config.sweep.pack=4", "--config.train.tokens=3072",
    "--config.checkpoint.every_steps=4", "--config.eval.every_steps=6", "--config.optim.clip_norm=None",
]  # fmt: skip
CELLS = [
    Cell({"seed": 0}),
    Cell({"seed": 1}),
    Cell({"seed": 0, "optim.learning_rate": 1e30}, name="hot"),  # diverges
]
STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def _compiled_once():
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    compile_cache.use_compilation_cache()


class Sweep:
    def __init__(self, store, path, cells=CELLS):
        file = config_file.load([*FLAGS, f"--config.data.store={store}"])
        self.workdir = Workdir(str(path))
        file = dataclasses.replace(file, cells=cells)
        self.manifest, _, self.store = from_config.enter(file, self.workdir, whole_grid=True)
        (self.job,) = jobs.jobs_of(self.manifest.runs)
        self.said = []

    def options(self, on_step=lambda beat: None):
        return Options(
            say=self.said.append, on_step=lambda name, heartbeat: on_step(heartbeat), devices=jax.devices()[:1]
        )

    def pack(self, on_step=lambda beat: None):
        runs = jobs.pack_called(self.manifest.runs, self.job.name)
        return self.train(runs, on_step)

    def alone(self):
        return [self.train([run])[0] for run in self.manifest.runs]

    def train(self, runs, on_step=lambda beat: None):
        goals = [run_goal(run, self.workdir, self.manifest.store) for run in runs]
        return loop.train(goals, self.store, self.manifest.store, self.options(on_step))

    @property
    def folders(self):
        return [self.workdir.run_dir(run.name) for run in self.manifest.runs]


def kill_at(step):
    def stop(beat):
        if beat.step == step:
            raise RuntimeError("killed")

    return stop


def test_where_the_grid_has_grown_the_pack_begins_anew_and_says_so(byte_store, tmp_path):
    with pytest.raises(RuntimeError, match="killed"):
        Sweep(byte_store, tmp_path, CELLS[:2]).pack(kill_at(7))
    grown, began = Sweep(byte_store, tmp_path, [*CELLS[:2], Cell({"seed": 2})]), []
    found = grown.pack(lambda beat: began.append(beat.step))
    assert began == sorted(3 * [*range(1, STEPS + 1)])
    assert [r.status for r in found] == 3 * ["done"]
    old = ", ".join(run.name for run in grown.manifest.runs[:2])
    assert any(said.startswith(f"{old}: had saved more, and goes back to step 0") for said in grown.said)


def test_whenever_a_step_is_retired_all_have_one_in_common(byte_store, tmp_path, monkeypatch):
    """Also where one is slow to save: a kill between two saves costs what is after the step before."""
    sweep, finish, retire = Sweep(byte_store, tmp_path, CELLS[:2]), Checkpoints._finish, Checkpoints._retire
    common = []

    def slow(self, *args):
        if sweep.folders[1].path in self._folder.parents:
            time.sleep(1)
        finish(self, *args)

    def seen(self):
        retire(self)
        steps = [set(folder.saved_steps()) for folder in sweep.folders]
        common.append(set.intersection(*steps) if min(map(len, steps)) else None)

    monkeypatch.setattr(Checkpoints, "_finish", slow)
    monkeypatch.setattr(Checkpoints, "_retire", seen)
    sweep.pack()
    assert common == [None, {4}, {4}, {4, 8}, {8}, {8, 12}]


def test_each_is_its_own_run_in_every_file(byte_store, tmp_path):
    """Stopped and gone on with; one diverges; and one is gone on with alone."""
    single = Sweep(byte_store, tmp_path / "single")
    wanted = single.alone()
    sweep = Sweep(byte_store, tmp_path / "packed")
    assert sweep.job.runs == sweep.manifest.runs and sweep.job.flags == (f"--pack={sweep.job.name}",)

    def stop(beat):
        if beat.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(errors.Stopped, match="stopped at step"):
        sweep.pack(stop)
    assert [folder.result() is None for folder in sweep.folders] == [True, True, False]
    assert sweep.folders[0].heartbeat().times["train"] > 0 < sweep.folders[2].result().times["train"]
    found = sweep.pack()
    assert [r.status for r in found] == [r.status for r in wanted] == ["done", "done", "diverged"]
    for one, folder, other, reference in zip(found, sweep.folders, wanted, single.folders, strict=True):
        assert one == folder.result()
        for field in ("name", "steps", "tokens", "own_tokens", "config_hash", "diverged_step"):
            assert getattr(one, field) == getattr(other, field), field
        lines, others = folder.read_metrics(), reference.read_metrics()
        assert [line.keys() for line in lines] == [line.keys() for line in others]
        np.testing.assert_allclose([m["loss"] for m in lines], [m["loss"] for m in others], rtol=1e-5)
        assert folder.run_record().config == reference.run_record().config and folder.run_record().mesh["pack"] == 1
        assert folder.heartbeat().phase == one.status
    assert [a.exit_code for a in sweep.folders[0].attempts()] == [errors.STOPPED, errors.DONE]
    assert [a.exit_code for a in sweep.folders[2].attempts()] == [errors.DIVERGED]
    for one, other in zip(found[:2], wanted, strict=False):
        assert one.eval_loss == pytest.approx(other.eval_loss, rel=1e-5)
        assert one.eval_loss_capacity == pytest.approx(other.eval_loss_capacity, rel=1e-5) != one.eval_loss
        assert one.eval_dropped_fraction == pytest.approx(other.eval_dropped_fraction, abs=2e-3)
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-5)
    assert sweep.pack(lambda beat: pytest.fail("trained again")) == found
    sweep.folders[1].result_path.unlink()
    folder = sweep.folders[1]
    (again,) = sweep.train(sweep.manifest.runs[1:2])
    assert again.eval_loss == pytest.approx(found[1].eval_loss, rel=1e-6)  # from the pack's last checkpoint
    folder.write_run_record(dataclasses.replace(folder.run_record(), config_hash="0" * 16))
    with pytest.raises(errors.UserError, match="holds a run of another config"):
        sweep.pack()
