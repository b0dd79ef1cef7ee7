"""Runs that differ in D alone share their trunk, and end with the bits of the same runs trained alone."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from moe_jax import errors
from moe_jax.config import config_file
from moe_jax.config.cell import Cell
from moe_jax.sweep import from_config, jobs
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import compile_cache, loop
from moe_jax.training.goal import run_goal, trunk_goal
from moe_jax.training.options import Options
from tests.conftest import ROOT, child_environment

# Times, rates and attempts differ from start to start; trunk and own_tokens say how it was trained. Nothing else may.
DIFFERENT = {"tokens_per_second", "wall_seconds", "times", "attempts", "git_commit", "mfu", "trunk", "own_tokens"}
BATCH = 256
LONG, SHORT = 30, 15  # steps; a fifth of them is the decay, so the branches leave at 24 and 12
WSD = [
    "--config.optim.schedule=wsd", "--config.optim.decay_fraction=0.2", "--config.optim.warmup_fraction=None",
    f"--config.optim.warmup_tokens={3 * BATCH}", "--config.eval.every_steps=12", "--config.checkpoint.keep=1",
    "--config.checkpoint.every_steps=4", "--config.train.log_every_steps=2",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _compiled_once():
    """All runs here are of one shape; as the processes of a sweep, they share its compiled program."""
    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    compile_cache.use_compilation_cache()


class Sweep:
    """A grid of these D (in steps) in a folder, trained in this process on one of its devices. `others` are what the
    run of a D overrides besides."""

    def __init__(self, store, path, *steps, flags=(), others=None):
        file = config_file.load(["--config=configs/smoke.py:tiny", f"--config.data.store={store}", *WSD, *flags])
        file = dataclasses.replace(file, cells=[self.cell(s, (others or {}).get(s, {})) for s in steps])
        self.workdir = Workdir(str(path))
        self.manifest, _, self.store = from_config.enter(file, self.workdir, whole_grid=True)
        self.said = []

    @staticmethod
    def cell(steps, others):
        return Cell({"train.tokens": steps * BATCH}, name=f"d{steps}") | others

    def options(self, on_step=lambda beat: None, devices=1):
        devices = jax.devices()[:devices]
        return Options(say=self.said.append, on_step=lambda name, heartbeat: on_step(heartbeat), devices=devices)

    @property
    def trunk(self):
        (trunk,) = jobs.trunks(self.manifest.runs)
        return trunk

    def train_trunk(self, on_step=lambda beat: None):
        goal = trunk_goal(self.trunk, self.workdir, self.manifest.store)
        return loop.train([goal], self.store, self.manifest.store, self.options(on_step))[0]

    def train(self, steps, on_step=lambda beat: None, alone=False, devices=1):
        run, trunk = self.manifest.run(f"d{steps}"), None if alone else self.trunk
        goal = run_goal(run, self.workdir, self.manifest.store, trunk)
        loop.train([goal], self.store, self.manifest.store, self.options(on_step, devices))
        return goal.folder


def outcome(folder):
    """What a run leaves, without what may differ."""
    result = {k: v for k, v in folder.result().to_json().items() if k not in DIFFERENT}
    metrics = [{k: v for k, v in line.items() if k not in DIFFERENT} for line in folder.read_metrics()]
    return json.dumps([result, metrics], sort_keys=True)


def stop_at(step):
    def stop(beat):
        if beat.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return stop


@pytest.fixture(scope="module")
def alone(byte_store, tmp_path_factory):
    """D in steps -> the outcome of the run that no trunk had a part in."""
    sweep = Sweep(byte_store, tmp_path_factory.mktemp("alone"), SHORT, LONG)
    folders = {steps: sweep.train(steps, alone=True) for steps in (SHORT, LONG)}
    assert all(folder.result().trunk is None for folder in folders.values())
    return {steps: outcome(folder) for steps, folder in folders.items()}


def test_branches_end_with_the_bits_of_runs_alone(byte_store, tmp_path, alone):
    sweep = Sweep(byte_store, tmp_path, SHORT, LONG)
    assert sweep.trunk.points == (12, 24)
    assert sweep.train_trunk().steps == 24
    folder = sweep.workdir.trunk_dir(sweep.trunk.name)
    assert {12, 24} <= set(folder.saved_steps()) and not folder.result_path.exists()
    for steps, own in ((SHORT, 3), (LONG, 6)):
        branch = sweep.train(steps)
        assert outcome(branch) == alone[steps]
        result = branch.result()
        assert (result.tokens, result.own_tokens) == (steps * BATCH, own * BATCH)
        assert result.trunk == sweep.trunk.name
    assert sweep.train_trunk(on_step=lambda beat: pytest.fail("trained again")).status == "done"


def test_a_branch_on_another_mesh_starts_from_the_trunk_too(byte_store, tmp_path, alone):
    other = {"mesh.data": 2, "mesh.expert": 1, "checkpoint.keep": 3}
    sweep = Sweep(byte_store, tmp_path, SHORT, LONG, others={SHORT: other})
    sweep.train_trunk()
    result = sweep.train(SHORT, devices=2).result()
    assert (result.trunk, result.own_tokens) == (sweep.trunk.name, 3 * BATCH)
    assert result.eval_loss == pytest.approx(json.loads(alone[SHORT])[0]["eval_loss"], rel=1e-4)
    assert outcome(sweep.train(LONG)) == alone[LONG]


@pytest.mark.parametrize("stop", [5, 12])
def test_a_trunk_and_a_branch_that_were_stopped_end_with_the_same_bits(byte_store, tmp_path, alone, stop):
    sweep = Sweep(byte_store, tmp_path, SHORT, LONG)
    with pytest.raises(errors.Stopped, match=f"stopped at step .* of {24}"):
        sweep.train_trunk(on_step=stop_at(stop))
    sweep.train_trunk()
    with pytest.raises(errors.Stopped, match="stopped at step"):
        sweep.train(LONG, on_step=stop_at(26))
    for steps in (SHORT, LONG):
        assert outcome(sweep.train(steps)) == alone[steps]
    assert sweep.workdir.run_dir(f"d{LONG}").result().own_tokens == 6 * BATCH


def test_a_branch_may_start_while_its_trunk_goes_on(byte_store, tmp_path, alone):
    sweep = Sweep(byte_store, tmp_path, SHORT, LONG)
    with pytest.raises(errors.Stopped):
        sweep.train_trunk(on_step=stop_at(14))
    ready = {job.name: jobs.is_ready(job, sweep.workdir) for job in jobs.jobs_of(sweep.manifest.runs)}
    assert ready == {sweep.trunk.name: True, f"d{SHORT}": True, f"d{LONG}": False}
    assert outcome(sweep.train(SHORT)) == alone[SHORT]


def test_a_grid_that_is_extended_goes_on_with_its_trunk(byte_store, tmp_path, alone):
    """A longer D prolongs the trunk; a D whose point the trunk has passed starts from what is before it."""
    first = Sweep(byte_store, tmp_path, 8, SHORT)
    first.train_trunk()
    name = first.trunk.name
    extended = Sweep(byte_store, tmp_path, 8, SHORT, 10, LONG)
    assert extended.trunk.name == name
    began = []
    extended.train_trunk(on_step=lambda beat: began.append(beat.step))
    assert began[0] == 13 and began[-1] == 24  # from the point of SHORT to that of LONG
    for steps in (SHORT, LONG):
        assert outcome(extended.train(steps)) == alone[steps]
    late = extended.train(10).result()  # it leaves at 8, where nothing was kept; the one before is at 6
    assert late.own_tokens == 4 * BATCH and late.trunk == name


def test_a_trunk_of_another_config_is_never_branched_from(byte_store, tmp_path):
    """Where its sweep.json was deleted: names do not carry the learning rate. Another way to train it is no other."""
    Sweep(byte_store, tmp_path, 8, SHORT).train_trunk()
    (tmp_path / "sweep.json").unlink()
    other = Sweep(byte_store, tmp_path, 8, SHORT, flags=["--config.optim.learning_rate=1e-5"])
    for go in (other.train_trunk, lambda: other.train(SHORT)):
        with pytest.raises(errors.UserError, match=r"holds a run of another config .* move that folder away$"):
            go()
    (tmp_path / "sweep.json").unlink()
    same = Sweep(byte_store, tmp_path, 8, SHORT, flags=["--config.mesh.data=1", "--config.train.log_every_steps=1"])
    assert same.train(SHORT).result().trunk == same.trunk.name


def test_a_branch_knows_where_it_left_without_its_run_json(byte_store, tmp_path):
    sweep = Sweep(byte_store, tmp_path, SHORT, LONG)
    sweep.train_trunk()
    with pytest.raises(errors.Stopped):
        sweep.train(LONG, on_step=stop_at(26))
    (sweep.workdir.run_dir(f"d{LONG}").path / "run.json").write_text("{")
    result = sweep.train(LONG).result()
    assert (result.own_tokens, result.trunk) == (6 * BATCH, sweep.trunk.name)


def test_a_damaged_point_costs_time_and_nothing_else(byte_store, tmp_path, alone):
    sweep = Sweep(byte_store, tmp_path, SHORT, LONG)
    sweep.train_trunk()
    folder = sweep.workdir.trunk_dir(sweep.trunk.name)
    (folder.checkpoints / "24" / "_CHECKPOINT_METADATA").write_text("{}")
    branch = sweep.train(LONG)
    assert any("24 is skipped" in str(s) for s in sweep.said)
    assert outcome(branch) == alone[LONG]
    assert branch.result().own_tokens == (LONG - 12) * BATCH


def test_a_trunk_that_diverges_lets_its_branches_diverge(byte_store, tmp_path):
    flags = ["--config.optim.learning_rate=1e30", "--config.optim.clip_norm=None"]
    sweep = Sweep(byte_store, tmp_path, SHORT, LONG, flags=flags)
    assert sweep.train_trunk().status == "diverged"
    assert jobs.trunk_state(sweep.trunk, sweep.workdir, 0.0).state == "diverged"
    assert all(jobs.is_ready(job, sweep.workdir) for job in jobs.jobs_of(sweep.manifest.runs))
    assert sweep.train(SHORT).result().status == "diverged"


CONFIG = """
from configs import smoke
from moe_jax.config import grid


def get_config(arg=None):
    config = smoke.get_config("tiny")
    config.optim.update(schedule="wsd", decay_fraction=0.2, warmup_fraction=None, warmup_tokens=768)
    config.checkpoint.update(every_steps=8, keep=1)
    return config


def get_grid(config, arg=None):
    return grid.product(grid.axis("train.tokens", [15 * 256, 60 * 256]), grid.axis("seed", [0, 1]))
"""


def sweep_process(config, store, workdir):
    command = [sys.executable, "-m", "moe_jax", "sweep", f"--config={config}", f"--config.data.store={store}"]
    return subprocess.Popen(
        [*command, f"--workdir={workdir}", "--jobs=2"], cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_sweep_with_trunks_under_a_random_killer(byte_store, tmp_path):
    """SIGKILL of the sweep or of one of its children, again and again: each run has one result in the end, and it is
    that of an undisturbed sweep."""
    config = tmp_path / "branching.py"
    config.write_text(CONFIG)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    process = sweep_process(config, byte_store, calm)
    began = time.monotonic()
    said = process.communicate(timeout=600)[0]
    assert process.returncode == errors.DONE, said
    longest = (time.monotonic() - began) / 4
    rng, kills, rounds = np.random.default_rng(0), 0, 0
    while True:
        rounds += 1
        assert rounds < 40, said
        process = sweep_process(config, byte_store, killed)
        until = time.monotonic() + (rng.uniform(1, longest) if kills < 10 else 600)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if process.poll() is None:
            children = children_of(process.pid)
            os.kill(int(rng.choice([process.pid, *children])), signal.SIGKILL)
            kills += 1
            if process.poll() is None and rng.random() < 0.5:
                process.kill()
        said = process.communicate(timeout=600)[0]
        if process.returncode == errors.DONE:
            break
    assert kills >= 4
    wanted, found = (sorted(path.glob("runs/*")) for path in (calm, killed))
    assert [p.name for p in found] == [p.name for p in wanted] and len(found) == 4
    for one, other in zip(found, wanted, strict=True):
        results = [Workdir(str(path.parent.parent)).run_dir(path.name) for path in (one, other)]
        assert outcome(results[0]) == outcome(results[1])
        for field in ("own_tokens", "trunk"):
            one_value, other_value = (getattr(r.result(), field) for r in results)
            assert one_value == other_value is not None
    attempts = [json.loads(p.read_text()) for p in killed.glob("*/*/attempts/*.json")]
    assert len(attempts) > 6  # jobs
