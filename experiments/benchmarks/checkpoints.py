"""The cost of checkpoints and restarts:  python -m experiments.benchmarks.checkpoints  (two minutes)

Saving: the same steps are trained with and without a checkpoint before them, in turn; the difference in time is the
whole cost of the save, including the digests that are computed in the background. Restarting: the time from the start
of the process to the end of its first step, with a warm compilation cache. Data: the share of a training's time that
the loop waits for batches.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table

from moe_jax.config import config_file
from moe_jax.data import windows
from moe_jax.model import sharding
from moe_jax.sweep import from_config
from moe_jax.sweep.planned_grid import plan_grid
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import loop, optimizer
from moe_jax.training.checkpoint import Checkpoints
from moe_jax.training.compile_cache import use_compilation_cache
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options
from moe_jax.training.step import Trainer

ROOT = Path(__file__).resolve().parents[2]
WIDTHS = (64, 128, 256)
REPEATS = 5
DEFAULT_SECONDS = 600.0  # checkpoint.every_minutes of configs/common.py
# Prints the first step, and the seconds from the time in its first argument to that step's end.
FIRST_STEP = """
import os, sys, time
from moe_jax.config import config_file
from moe_jax.sweep import from_config
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import loop
from moe_jax.training.compile_cache import use_compilation_cache
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options
began, workdir, *flags = sys.argv[1:]
use_compilation_cache()
manifest, runs, store = from_config.enter(config_file.load(flags), Workdir(workdir), whole_grid=False)
def first(name, heartbeat):
    print(heartbeat.step, time.time() - float(began), flush=True)
    os._exit(0)
goal = run_goal(manifest.run(runs[0].name), Workdir(workdir), manifest.store)
loop.train([goal], store, manifest.store, Options(lambda sentence: None, first))
"""


def main() -> None:
    console = Console(width=110)
    use_compilation_cache()
    with contextlib.chdir(ROOT), tempfile.TemporaryDirectory() as scratch:
        store = f"{scratch}/store"
        prepare = [sys.executable, "-m", "moe_jax", "prepare", f"--store={store}"]
        subprocess.run(prepare, check=True, stdout=subprocess.DEVNULL)
        for table in (saving, restarting, waiting):
            console.print(table(Path(scratch), store))


def flags_of(store: str, *overrides: str) -> list[str]:
    fields = (f"data.store={store}", "train.tokens=1e9", "data.repeat=True", *overrides)
    return ["--config=configs/smoke.py", *(f"--config.{field}" for field in fields)]


def saving(scratch: Path, store: str) -> Table:
    heads = ("state", "step", "the loop waits", "whole cost", f"share of time, every {DEFAULT_SECONDS / 60:.0f} min")
    table = Table(*heads, title="saving a checkpoint to the local disk")
    for width in WIDTHS:
        trainer, state, batches, schedule = ready(store, width)
        folder = epath.Path(scratch / f"width{width}")
        checkpoints = Checkpoints(folder, "hash", keep=2)
        state, a_step = steps(trainer, state, batches, schedule, 20)
        n = max(20, round(3.0 / (a_step / 20)))
        blocked, costs = [], []
        for repeat in range(REPEATS):
            state, without = steps(trainer, state, batches, schedule, n)
            began = time.perf_counter()
            checkpoints.save(state, repeat)
            blocked.append(time.perf_counter() - began)
            state, _ = steps(trainer, state, batches, schedule, n)
            checkpoints.wait()  # counts what is still being written
            costs.append(time.perf_counter() - began - without)
        checkpoints.close()
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        cost = max(0.0, float(np.median(costs)))
        table.add_row(
            f"{size / 1e6:.1f} MB", f"{1e3 * without / n:.0f} ms", f"{1e3 * np.median(blocked):.0f} ms",
            f"{1e3 * cost:.0f} ms", f"{cost / DEFAULT_SECONDS:.2%}",
        )  # fmt: skip
    return table


def ready(store: str, width: int):
    """(trainer, state, batch of step 0, schedule) of a model of this width, with the step compiled."""
    file = config_file.load(flags_of(store, f"model.d_model={width}"))
    opened = plan_grid(file, whole_grid=False).store
    trainer = Trainer(
        file.config, opened.info.vocab_size, sharding.Layout(sharding.make_mesh(file.config.mesh)),
        opened.info.end_of_document,
    )  # fmt: skip
    batch = trainer.put(windows.training_batches(file.config, opened), 0)
    schedule = optimizer.schedule_of(file.config)
    state, _ = trainer.step(trainer.init(0), batch, schedule)
    return trainer, jax.block_until_ready(state), batch, schedule


def steps(trainer: Trainer, state, batch, schedule, n: int):
    """(state, seconds) after n steps on one batch."""
    began = time.perf_counter()
    for _ in range(n):
        state, metrics = trainer.step(state, batch, schedule)
        float(metrics["loss"])
    return state, time.perf_counter() - began


def restarting(scratch: Path, store: str) -> Table:
    table = Table(
        "continues at step", "lines of metrics.jsonl", "seconds to the first step", title="a restart, cache warm"
    )
    flags = flags_of(store)
    for step in (0, 100, 1_000_000):
        workdir = Workdir(str(scratch / f"step{step}"))
        _, runs, _ = from_config.enter(config_file.load(flags), workdir, whole_grid=False)
        folder = workdir.run_dir(runs[0].name)
        folder.create()
        lines = write_run_at(folder, store, step) if step else 0
        seconds = []
        for _ in range(REPEATS):
            command = [sys.executable, "-c", FIRST_STEP, str(time.time()), str(workdir.path), *flags]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            assert int(said[-2]) == step + 1, said
            seconds.append(float(said[-1]))
        table.add_row(f"{step:,}", f"{lines:,}", f"{np.median(seconds):.1f}")
    return table


def write_run_at(folder, store: str, step: int) -> int:
    """Writes the files of a run that was stopped after `step`; returns the number of lines in its metrics."""
    trainer, state, _, _ = ready(store, 32)
    checkpoints = Checkpoints(folder.checkpoints, "hash", keep=2)
    checkpoints.save(dataclasses.replace(state, step=jax.numpy.int32(step)), step)
    checkpoints.close()
    every = trainer.config.train.log_every_steps
    line = {"tokens": 0, "loss": 2.5, "dropped_fraction": 0.01, "max_over_mean_load": 1.5, "learning_rate": 1e-3,
            "gradient_norm": 0.5, "balance": 1.01, "z": 0.2, "entropy": 1.2, "tokens_per_second": 1e5}  # fmt: skip
    folder.metrics.write_text("".join(json.dumps({"step": s} | line) + "\n" for s in range(0, step, every)))
    return len(range(0, step, every))


def waiting(scratch: Path, store: str) -> Table:
    table = Table("run", "tokens/s", "train", "data", "eval", "checkpoint", "compile", title="where a run's time goes")
    for width in (16, 64):
        flags = [f for f in flags_of(store, f"model.d_model={width}") if "tokens" not in f]
        workdir = Workdir(str(scratch / f"waiting{width}"))
        manifest, runs, opened = from_config.enter(config_file.load(flags), workdir, whole_grid=False)
        goal = run_goal(manifest.run(runs[0].name), workdir, manifest.store)
        (result,) = loop.train([goal], opened, manifest.store, Options(say=lambda sentence: None))
        times = result.times
        shares = (f"{times[name]:.2f} s" for name in ("train", "data", "eval", "checkpoint", "compile"))
        table.add_row(result.name, f"{result.tokens_per_second:,.0f}", *shares)
    return table


if __name__ == "__main__":
    main()
