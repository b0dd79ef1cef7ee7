"""A sweep's jobs in an object store: a trunk and its branches, a pack. Their losses are those of the local sweep."""

import json
import subprocess
import sys

import pytest

from moe_jax import errors
from tests import gcs
from tests.conftest import ROOT, child_environment

pytestmark = pytest.mark.slow

TRUNKS = """
from configs import smoke
from moe_jax.config import grid

def get_config(arg=None):
    config = smoke.get_config("tiny")
    config.optim.schedule = "wsd"
    config.optim.decay_fraction = 0.2
    config.optim.warmup_fraction = None
    config.optim.warmup_tokens = 512
    return config

def get_grid(config, arg=None):
    return grid.axis("train.tokens", [4096, 8192])
"""
PACKS = """
from configs import smoke
from moe_jax.config import grid

def get_config(arg=None):
    config = smoke.get_config("tiny")
    config.sweep.pack = 2
    return config

def get_grid(config, arg=None):
    return grid.axis("seed", [0, 1])
"""
LOSSES = """
import json, sys
from moe_jax.sweep.workdir import Workdir
workdir = Workdir(sys.argv[1])
results = {run.name: workdir.run_dir(run.name).result() for run in workdir.existing_manifest().runs}
print(json.dumps({name: [r.eval_loss, r.train_loss, r.trunk, r.own_tokens] for name, r in results.items()}))
"""


@pytest.fixture(scope="module")
def environment():
    with gcs.emulator() as emulated:
        yield child_environment(1, **emulated)


def run(environment, *command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == errors.DONE, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("grid", [TRUNKS, PACKS], ids=["trunk", "pack"])
def test_a_sweep_in_a_bucket_gives_the_local_losses(grid, environment, byte_store, tmp_path):
    config = tmp_path / "grid.py"
    config.write_text(grid)
    losses = []
    for workdir in ("gs://bucket/" + tmp_path.name, str(tmp_path / "w")):
        flags = [f"--config={config}", f"--config.data.store={byte_store}", f"--workdir={workdir}"]
        said = run(environment, "-m", "moe_jax", "sweep", *flags, "--jobs=1")
        assert "2/2 runs done" in said
        assert "2 done" in run(environment, "-m", "moe_jax", "status", f"--workdir={workdir}")
        losses.append(json.loads(run(environment, "-c", LOSSES, workdir).splitlines()[-1]))
    assert losses[0] == losses[1] and len(losses[0]) == 2
    assert all((trunk is not None) == (grid is TRUNKS) for _, _, trunk, _ in losses[0].values())
