"""`submit --launcher local` under a random killer of runs and submitters: in the end every run has exactly one result,
that of an undisturbed grid."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moe_jax import errors
from moe_jax.sweep.workdir import Workdir
from tests.conftest import ROOT, child_environment
from tests.faults import outcome

CONFIG = """
from configs import smoke
from moe_jax.config import grid


def get_config(arg=None):
    config = smoke.get_config("tiny")
    config.checkpoint.update(every_steps=20, keep=2)
    config.train.log_every_steps = 10
    return config


def get_grid(config, arg=None):
    return grid.product(grid.axis("train.tokens", [100 * 256, 300 * 256]), grid.axis("seed", [0, 1]))
"""
KILLS = 12
IMPORTS = 3.0  # seconds before a start notes that it began


class Submitter:
    """A process of the verb, with a log of all it and those before it said."""

    def __init__(self, config: Path, store: str, workdir: Path):
        self.log = workdir.with_suffix(".log")
        command = [
            sys.executable, "-m", "moe_jax", "submit", "--launcher=local", f"--config={config}", "--yes",
            f"--config.data.store={store}", f"--workdir={workdir}", "--jobs=2", "--max_restarts=30",
        ]  # fmt: skip
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=child_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def children(self) -> list[int]:
        pid = self.process.pid
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def wait(self) -> int:
        return self.process.wait(timeout=600)


@pytest.mark.slow
def test_every_run_has_one_result_under_a_random_killer(byte_store, tmp_path):
    config = tmp_path / "tiny.py"
    config.write_text(CONFIG)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    assert Submitter(config, byte_store, calm).wait() == errors.DONE
    starts = [json.loads(p.read_text()) for p in calm.glob("runs/*/attempts/1.json")]
    lifetime = IMPORTS + min(start["ended"] - start["began"] for start in starts)  # the others compiled, too
    rng, kills = random.Random(1), {"run": 0, "submitter": 0}  # noqa: S311
    submitter = Submitter(config, byte_store, killed)
    while sum(kills.values()) < KILLS:
        until = time.monotonic() + rng.uniform(0.2, 1.0) * lifetime
        while time.monotonic() < until and submitter.process.poll() is None:
            time.sleep(0.02)
        if submitter.process.poll() == errors.DONE:
            break
        children = submitter.children()
        if children and rng.random() < 0.7:
            os.kill(rng.choice(children), signal.SIGKILL)
            kills["run"] += 1
        else:
            kills["submitter"] += submitter.process.poll() is None
            submitter.process.kill()
            submitter.wait()
            submitter = Submitter(config, byte_store, killed)
    assert submitter.wait() == errors.DONE, submitter.log.read_text()
    assert min(kills.values()) >= 1, kills

    wanted, found = Workdir(str(calm)), Workdir(str(killed))
    runs = wanted.existing_manifest().runs
    assert sorted(p.name for p in (found.path / "runs").iterdir()) == sorted(run.name for run in runs)
    for run in runs:
        folder = found.run_dir(run.name)
        assert [p.name for p in folder.path.glob("result*")] == ["result.json"]
        assert outcome(folder) == outcome(wanted.run_dir(run.name))
    ends = [json.loads(p.read_text()) for p in killed.glob("runs/*/attempts/*.json")]
    assert len(ends) > len(runs) and sum(end.get("exit_code") == errors.DONE for end in ends) == len(runs)
