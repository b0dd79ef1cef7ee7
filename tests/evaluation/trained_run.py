"""A run of a few steps, trained in the test's process."""

import jax

from moe_jax.config import config_file
from moe_jax.sweep import from_config
from moe_jax.sweep.rundir import RunDir
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import loop
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options

TINY = ("--config=configs/smoke.py:tiny", "--config.train.tokens=1024")


def train_run(folder, store: str, *flags: str, devices: int = 1) -> RunDir:
    """The folder of the first run of these flags, trained on so many devices."""
    workdir = Workdir(str(folder))
    file = config_file.load([*TINY, *flags, f"--config.data.store={store}"])
    manifest, runs, opened = from_config.enter(file, workdir, whole_grid=False)
    goal = run_goal(manifest.run(runs[0].name), workdir, manifest.store)
    options = Options(say=lambda sentence: None, devices=jax.devices()[:devices])
    loop.train([goal], opened, manifest.store, options)
    return goal.folder
