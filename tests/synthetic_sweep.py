"""A sweep's folder as training leaves it, without training: losses come from a planted law."""

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moe_jax.config import config_file, grid
from moe_jax.sweep.heartbeat import Phase
from moe_jax.sweep.manifest import Manifest, PlannedRun, StoreIdentity, plan_runs
from moe_jax.sweep.result import Result, Status
from moe_jax.sweep.run_record import RunRecord, RunStore
from moe_jax.sweep.rundir import RunDir
from moe_jax.sweep.workdir import Workdir
from moe_jax.training.metrics import Recorder

STORE = StoreIdentity("stores/python_stdlib_byte", "5e" * 32, 256, train_tokens=200_001)
LAW = {"c": 0.8, "g": 0.5, "gamma": 0.6, "a": 9.0, "alpha": 0.2, "b": 60.0, "beta": 0.35}  # nats, at this tiny size
WIDTHS, TOKENS, GRANULARITIES = (16, 32, 64), (96_000, 192_000, 384_000), (1, 2, 4)


def cells(widths=WIDTHS, tokens=TOKENS, granularities=GRANULARITIES) -> list[grid.Cell]:
    return grid.product(
        grid.axis("model.d_model", widths),
        grid.axis("train.tokens", tokens),
        grid.axis("moe.granularity", granularities),
    )


def planted_loss(N: float, D: float, G: float) -> float:
    """krajewski2024's form, nats per token."""
    p = LAW
    return p["c"] + (p["g"] / G ** p["gamma"] + p["a"]) / N ** p["alpha"] + p["b"] / D ** p["beta"]


def planned_loss(run: PlannedRun) -> float:
    G = 1 if run.config.moe is None else run.config.moe.granularity
    return planted_loss(run.counts.n_total_nonemb, run.counts.tokens, G)


def make(
    folder: Path, grid_cells: Sequence[grid.AnyCell] | None = None, store: StoreIdentity = STORE,
    flags: str = "--config=configs/common.py --config.seed=0",
) -> tuple[Workdir, tuple[PlannedRun, ...]]:  # fmt: skip
    """A workdir whose runs are all queued, by the API that sweep uses."""
    file = config_file.load([f"--config={Path(__file__).parents[1] / 'configs' / 'common.py'}"])
    planned = plan_runs(grid.expand(file.base.to_dict(), cells() if grid_cells is None else grid_cells), store)
    work = Workdir(str(folder))
    work.accept(Manifest("tiny", flags, store, planned), whole=True)
    return work, planned


def result_of(run: PlannedRun, **changed: Any) -> Result:
    """The result of a finished run."""
    loss = planned_loss(run)
    values = {
        "name": run.name, "status": Status.DONE, "steps": run.config.steps, "eval_loss": loss,
        "bits_per_byte": loss / math.log(2), "train_loss": loss - 0.01, "tokens": run.counts.tokens,
        "own_tokens": run.counts.tokens, "dropped_fraction": 0.02, "eval_loss_capacity": loss + 0.001,
        "eval_dropped_fraction": 0.015, "wall_seconds": 12.5, "attempts": 1,
        "times": {"train": 9.0, "eval": 1.0, "checkpoint": 0.5, "compile": 2.0, "data": 0.1},
        "config_hash": run.config_hash, "tokens_per_second": 20_000.0, "max_over_mean_load": 1.3,
        "git_commit": "0" * 40, "device": "cpu", "n_devices": 1,
    }  # fmt: skip
    return Result(**values | changed)


def diverged_result_of(run: PlannedRun, step: int) -> Result:
    nothing = dict.fromkeys(
        ["eval_loss", "eval_loss_capacity", "bits_per_byte", "train_loss", "dropped_fraction", "eval_dropped_fraction"]
    )
    tokens = step * run.config.batch_tokens
    return result_of(
        run, status=Status.DIVERGED, steps=step, tokens=tokens, own_tokens=tokens, diverged_step=step, **nothing
    )


def run_record_of(run: PlannedRun, **changed: Any) -> RunRecord:
    """The run.json of a run that has started."""
    known = dataclasses.asdict(STORE)
    store = RunStore(**known, vocabulary={"kind": "byte"}, end_of_document=1)
    values = {
        "name": run.name, "began": time.time(), "attempt": 1, "config": run.config, "config_hash": run.config_hash,
        "counts": run.counts, "store": store, "mesh": {"replica": 1, "data": 1, "expert": 1}, "device": "cpu",
        "platform": "cpu", "n_devices": 1, "host": "here", "git_commit": "0" * 40,
        "versions": {"python": "3.11.2", "jax": "0.10.2"},
    }  # fmt: skip
    return RunRecord(**values | changed)


def beat(folder: RunDir, run: PlannedRun, step: int, loss: float = 3.0, phase: Phase = Phase.TRAINING) -> None:
    """Writes the heartbeat of a run that has done `step` updates."""
    recorder = Recorder(
        folder, steps=run.config.steps, batch_tokens=run.config.batch_tokens, attempt=1, writes=True, flush_seconds=60
    )
    recorder.enter(phase)
    for done in (step - 2, step - 1):  # the rate needs two
        recorder.seen(done, loss)
    recorder.flush()
    recorder.close()


def begin(work: Workdir, run: PlannedRun, step: int | None = None, **more: Any) -> tuple[RunDir, int]:
    """A run that has started: run.json, an attempt, and with a `step` a heartbeat. Gives its folder and attempt."""
    folder = work.run_dir(run.name)
    folder.create()
    attempt = folder.begin_attempt()
    folder.write_run_record(run_record_of(run))
    if step is not None:
        beat(folder, run, step, **more)
    return folder, attempt


def finish(work: Workdir, run: PlannedRun, result: Result | None = None) -> RunDir:
    """A run from its start to its result."""
    folder, attempt = begin(work, run)
    result = result_of(run) if result is None else result
    folder.write_metrics(curve(run, upto=result.steps))
    folder.write_result(result)
    folder.end_attempt(attempt, 0, "done")
    return folder


def curve(run: PlannedRun, upto: int | None = None) -> list[dict[str, Any]]:
    """metrics.jsonl's objects: from ln V down to the run's loss."""
    end, steps = planned_loss(run), run.config.steps
    at = np.arange(0, steps if upto is None else upto, 5)
    losses = end + (np.log(256) - end) * np.exp(-8 * at / steps)
    return [
        {"step": int(s), "tokens": int(s + 1) * run.config.batch_tokens, "loss": float(x), "learning_rate": 3e-3}
        for s, x in zip(at, losses, strict=True)
    ]


def set_back(folder: RunDir, seconds: float) -> None:
    """Makes a run's signs of life older."""
    for path, field in [(folder.path / "heartbeat.json", "time"), (folder.path / "attempts" / "1.json", "began")]:
        values = json.loads(path.read_text())
        path.write_text(json.dumps(values | {field: values[field] - seconds}))
