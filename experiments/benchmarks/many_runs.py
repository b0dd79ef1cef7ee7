"""Seconds that `plan`, `status`, `collect` and `report` take on a grid of many runs:

    python -m experiments.benchmarks.many_runs [--runs=10000] [--rounds=5] [--schedule=cosine] [--workdir=gs://…]

The sweep is as training leaves it, without checkpoints of the runs: nine runs in ten are done, the others diverged,
failed, run, or have not begun. Each verb is a process of its own, from the start of Python on; its first round, which
warms the page cache, is not counted. "one more" collects after one run has finished. With `--schedule=wsd`, runs that
differ in D alone share trunks.
"""

import argparse
import functools
import itertools
import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

from etils import epath

from experiments.benchmarks import results, verbs
from experiments.benchmarks.machine import processor
from moe_jax import files
from moe_jax.config import config_file
from moe_jax.sweep import from_config, jobs
from moe_jax.sweep.heartbeat import Heartbeat, Phase
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.run_record import RunStore
from moe_jax.sweep.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.sparse_store import sparse_store

WRITERS = 16
STORE_TOKENS = 10**7
CONFIG = """
from configs import common
from moe_jax.config import grid


def get_config(arg=None):
    config = common.get_config()
    config.eval.sequences = 32  # the store below has few
    if arg == "wsd":
        config.optim.update(schedule="wsd", warmup_tokens=16_384, warmup_fraction=None, decay_fraction=0.2)
    return config


def get_grid(config, arg=None):
    return grid.product(
        grid.axis("model.d_model", [16, 32, 64, 128, 256]),
        grid.axis("train.tokens", [192_000, 384_000, 768_000, 1_536_000, 3_072_000]),
        grid.axis("moe.granularity", [1, 2, 4, 8]),
        grid.axis("optim.learning_rate", [1e-3, 2e-3, 3e-3, 4e-3, 6e-3]),
        grid.axis("seed", range(SEEDS)),
    )[:RUNS]
"""
CELLS_A_SEED = 5 * 5 * 4 * 5
FORMATS = {"verb": "", "seconds": ".2f", "least": ".2f", "most": ".2f", "of CPU": ".2f"}
KINDS = ("queued", "running", "failed", "diverged", *["done"] * 36)  # run i of the sweep is of kind i % 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--schedule", choices=["cosine", "wsd"], default="cosine")
    parser.add_argument("--workdir", help="a folder, which is deleted afterwards (default: a temporary one)")
    results.add_flag(parser)
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    flags = parser.parse_args()
    scratch = Path(tempfile.mkdtemp())
    work = Workdir(flags.workdir or str(scratch / "sweep"))
    store = f"--config.data.store={scratch / 'store'}"
    config = [f"--config={write_config(scratch, flags.runs)}:{flags.schedule}", store]
    try:
        finish_one = make(work, config)
        rows = [row(name, *zip(*taken, strict=True)) for name, taken in measure(work, finish_one, config, flags.rounds)]
        title = f"{flags.runs:,} runs, {flags.schedule}; {processor()}; median of {flags.rounds} rounds"
        results.show(results.Results(title, FORMATS, rows), flags.out)
    finally:
        if flags.keep:
            print(f"left: {work.path}, {scratch}")
        else:
            epath.Path(work.path).rmtree()
            shutil.rmtree(scratch)


def row(name: str, wall: tuple[float, ...], cpu: tuple[float, ...]) -> dict[str, str | float]:
    """A row of the table: a verb's seconds."""
    return {
        "verb": name, "seconds": statistics.median(wall), "least": min(wall), "most": max(wall),
        "of CPU": statistics.median(cpu),
    }  # fmt: skip


def write_config(folder: Path, n: int) -> Path:
    """A config file whose grid has n runs."""
    path = folder / "many.py"
    path.write_text(CONFIG.replace("SEEDS", str(math.ceil(n / CELLS_A_SEED))).replace("RUNS", str(n)))
    return path


def make(work: Workdir, config: list[str]) -> Callable[[], None]:
    """Writes the sweep; gives what finishes one more of its runs."""
    sparse_store(Path(config[1].partition("=")[2]), STORE_TOKENS)
    with mock.patch("os.fsync"):  # a power failure may spoil a benchmark
        manifest, runs, store = from_config.enter(config_file.load(config), work, whole_grid=True)
        identity = RunStore(
            manifest.store.path, manifest.store.sha256, manifest.store.vocab_size,
            vocabulary=store.info.vocabulary, end_of_document=store.info.end_of_document,
        )  # fmt: skip
        with ThreadPoolExecutor(WRITERS) as pool:
            list(pool.map(lambda run, kind: write_run(work, run, kind, identity), runs, itertools.cycle(KINDS)))
            list(pool.map(functools.partial(write_trunk, work), jobs.trunks(runs)))
    return functools.partial(write_run, work, runs[0], "done", identity)


def write_run(work: Workdir, run: PlannedRun, kind: str, store: RunStore) -> None:
    """The files of a run of one of KINDS."""
    if kind == "queued":
        return
    half = run.config.steps // 2
    folder, result = work.run_dir(run.name), None
    folder.create()
    attempt = folder.begin_attempt("token")
    folder.write_run_record(synthetic.run_record_of(run, store=store))
    if kind == "done":
        result = synthetic.result_of(run)
    elif kind == "diverged":
        result = synthetic.diverged_result_of(run, half)
    step = half if result is None else result.steps
    folder.write_metrics(synthetic.curve(run, upto=step))
    folder.write_heartbeat(beat(run, step, {"done": Phase.DONE, "diverged": Phase.DIVERGED}.get(kind, Phase.TRAINING)))
    if result is not None:
        folder.write_result(result)
    if kind != "running":
        folder.end_attempt(attempt, {"failed": 1, "diverged": 3}.get(kind, 0), f"{kind}: its last sentence", "token")


def write_trunk(work: Workdir, trunk: jobs.Trunk) -> None:
    """The files of a trunk that is done, but for the arrays of its checkpoints."""
    folder = work.trunk_dir(trunk.name)
    folder.create()
    attempt = folder.begin_attempt("token")
    folder.write_heartbeat(beat(trunk.planned, trunk.points[-1], Phase.DONE))
    folder.checkpoints.mkdir()
    for step in trunk.points:
        files.write_sealed(folder.checkpoints / f"{step}.sha256.json", {"step": step, "files": {}})
    folder.end_attempt(attempt, 0, "done", "token")


def beat(run: PlannedRun, step: int, phase: Phase) -> Heartbeat:
    """The heartbeat of a run that has done `step` updates, written now."""
    return Heartbeat(
        step=step, steps=run.config.steps, tokens=step * run.config.batch_tokens, loss=3.0, tokens_per_second=20_000.0,
        seconds_left=10.0, phase=phase, attempt=1, host="here", times=synthetic.result_of(run).times, time=time.time(),
    )  # fmt: skip


def measure(
    work: Workdir, finish_one: Callable[[], None], config: list[str], rounds: int
) -> Iterator[tuple[str, list[verbs.Seconds]]]:
    """(what, its seconds in each round) of each verb."""
    sweep = f"--workdir={work.path}"
    yield "plan", [verbs.seconds_of("plan", *config) for _ in range(rounds + 1)][1:]
    yield "status", [verbs.seconds_of("status", sweep) for _ in range(rounds + 1)][1:]
    yield "collect, the first", [first_collect(work, sweep) for _ in range(rounds + 1)][1:]
    yield "collect, nothing new", [verbs.seconds_of("collect", sweep) for _ in range(rounds)]
    yield "collect, one more", [one_more(finish_one, sweep) for _ in range(rounds)]
    yield "report", [verbs.seconds_of("report", sweep) for _ in range(rounds + 1)][1:]


def first_collect(work: Workdir, sweep: str) -> verbs.Seconds:
    for name in ("results.csv", "collected.json"):
        (work.path / name).unlink(missing_ok=True)
    return verbs.seconds_of("collect", sweep)


def one_more(finish_one: Callable[[], None], sweep: str) -> verbs.Seconds:
    finish_one()
    return verbs.seconds_of("collect", sweep)


if __name__ == "__main__":
    main()
