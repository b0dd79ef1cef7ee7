"""What the launcher notes of children that could not speak for themselves."""

import io
import sys
import time

import pytest

from moe_jax import errors
from moe_jax.config import config_file, grid
from moe_jax.progress import Display
from moe_jax.sweep.launchers import local_jobs
from moe_jax.sweep.manifest import Manifest, StoreIdentity, plan_runs
from moe_jax.sweep.run_state import state_of
from moe_jax.sweep.workdir import Workdir

STORE = StoreIdentity("stores/x", "a" * 64, 259)


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """launch(script) -> (exit states, the run's folder, what was said): the script stands for the training."""
    base = config_file.load(["--config=configs/common.py"]).base.to_dict()
    workdir = Workdir(str(tmp_path / "w"))
    manifest = Manifest("s000000", "", STORE, plan_runs(grid.expand(base, [{}]), STORE))
    (run,) = workdir.accept(manifest, whole=True).runs
    folder = workdir.run_dir(run.name)
    folder.create()
    said = io.StringIO()

    def go(script):
        fake = tmp_path / "python"
        fake.write_text(f"#!/bin/sh\n{script}\n")
        fake.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(fake))
        return local_jobs.LocalJobs(workdir, [run], 1, Display(said)).train()

    go.run, go.folder, go.said = run, folder, said
    return go


def test_a_child_that_dies_before_its_first_word_is_noted(launch):
    """Also where an earlier start was stopped in good order, whose note must stay as it is."""
    launch.folder.end_attempt(launch.folder.begin_attempt(), errors.STOPPED, "stopped at step 3")
    (state,) = launch("echo out of memory; exit 9")
    assert (state.state, state.sentence, state.attempts) == ("failed", "out of memory", 2)
    assert launch.folder.attempts()[0].sentence == "stopped at step 3"
    assert "failed with code 9: out of memory" in launch.said.getvalue()


def test_a_child_that_is_killed_is_noted(launch):
    (state,) = launch("kill -9 $$")
    assert (state.state, state.sentence) == ("failed", "ended with code -9")


def test_a_child_that_is_stopped_while_it_starts_is_queued(launch, monkeypatch):
    """It is still importing when the sweep is asked to stop, and ends by the signal itself."""
    asked = time.monotonic() + 1.0

    def sleep(seconds):
        time_sleep(seconds)
        if time.monotonic() > asked:
            local_jobs.signal.raise_signal(local_jobs.signal.SIGTERM)

    time_sleep = time.sleep
    monkeypatch.setattr(local_jobs.time, "sleep", sleep)
    with pytest.raises(errors.Stopped, match="0 of 1 runs done"):
        launch("exec sleep 60")
    monkeypatch.undo()
    assert state_of(launch.run, launch.folder, time.time()).state == "queued"
