"""A sweep with every kind of file: results, submissions, a plan, a law, and beside it a run that was really trained."""

import contextlib
import io
from pathlib import Path
from types import ModuleType

import pandas as pd
import zstandard

from moe_jax import errors
from moe_jax.cli import collect, command, fit, plan, train
from moe_jax.sweep.jobs import run_job
from moe_jax.sweep.manifest import StoreIdentity
from moe_jax.sweep.submission_records import SubmissionRecords, next_submission
from tests import synthetic_sweep
from tests.data_stores import Texts, make_store, words

ADDRESS = "xpk:my-project/us-east5-a/pods"
# Kind -> the paths of its files; the first one is damaged.
KINDS = {
    "sweep.json": "sweep.json", "run.json": "runs/*/run.json", "result.json": "runs/*/result.json",
    "heartbeat.json": "runs/*/heartbeat.json", "attempt": "runs/*/attempts/1.json",
    "metrics.jsonl": "runs/*/metrics.jsonl", "results.csv": "results.csv", "law.json": "law.json",
    "table.jsonl": "table.jsonl", "table.parquet": "table.parquet", "table.csv.zst": "table.csv.zst",
    "law.bootstrap.csv": "law.bootstrap.csv", "collected.json": "collected.json",
    "plan.json": "plan.json", "submission.json": "submission.json",
    "submission record": "submission/*.json", "trained run.json": "trained/runs/*/run.json",
    "checkpoint digest": "trained/runs/*/checkpoints/*.sha256.json",
    "checkpoint array": "trained/runs/*/checkpoints/*/**/d/*", "store.json": "store/store.json",
}  # fmt: skip
TABLES = ("results.csv", "table.jsonl", "table.parquet", "table.csv.zst")  # the same rows
SEALED = KINDS.keys() - {"heartbeat.json", "attempt", "metrics.jsonl", *TABLES}
_TRAIN = [
    "--config=configs/smoke.py:tiny", "--config.train.tokens=4096", "--config.checkpoint.every_steps=4",
    "--config.eval.sequences=16",
]  # fmt: skip


def make(folder: Path) -> Path:
    """The sweep; its folder. Of its 27 runs 25 are done, one is with a launcher, and one with nobody."""
    path = folder / "sound"
    identity = make_store(path / "store", Texts(tuple(words(seed, 11) for seed in range(200)))).info
    store = StoreIdentity(f"{path}/store", identity.sha256, identity.vocab_size)
    work, planned = synthetic_sweep.make(path, store=store)
    for run in planned[:-2]:
        synthetic_sweep.beat(synthetic_sweep.finish(work, run), run, run.config.steps)
    records = SubmissionRecords(work)
    submission = next_submission("tiny", run_job(planned[-2], None), None, ADDRESS)
    assert records.claim(submission, ADDRESS, "batch")
    records.confirm(submission, ADDRESS, "batch")
    records.summarise()
    _call(collect, [f"--workdir={path}"])
    _call(fit, [f"--results={path}/results.csv", "--law=chinchilla", "--bootstrap=20", f"--out={path}/law.json"])
    table = pd.read_csv(path / "results.csv")
    table.to_json(path / "table.jsonl", orient="records", lines=True)
    table.to_parquet(path / "table.parquet")
    (path / "table.csv.zst").write_bytes(zstandard.compress((path / "results.csv").read_bytes()))
    _call(plan, ["--config=tests/synthetic_grid.py", f"--config.data.store={path}/store", f"--workdir={path}"])
    _call(train, [*_TRAIN, f"--config.data.store={path}/store", f"--workdir={path}/trained"])
    _call(collect, [f"--workdir={path}"])  # once more: collected.json keeps what was not written just now
    return path


def _call(verb: ModuleType, arguments: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = command.run(verb.main, arguments)
    assert code == errors.DONE, said.getvalue()


def path_of(sweep: Path, kind: str) -> Path:
    """The file of a kind that is damaged: that of the first run, or of the newest checkpoint."""
    return _paths(sweep, kind)[0]


def other_files(sweep: Path, kind: str) -> dict[str, Path]:
    """Sound files that are another run's, or another checkpoint's."""
    others = _paths(sweep, kind)[1:2]
    if kind in ("plan.json", "law.json", "sweep.json", "submission.json"):
        others = [sweep / ("law.json" if kind == "plan.json" else "plan.json")]
    return {f"the content of {other.relative_to(sweep)}": other for other in others}


def trained_run(sweep: Path) -> Path:
    """The folder of the run that was trained."""
    (folder,) = (sweep / "trained" / "runs").iterdir()
    return folder


def _paths(sweep: Path, kind: str) -> list[Path]:
    paths = sorted(sweep.glob(KINDS[kind]))
    newest_first = kind.startswith("checkpoint")  # 8 stands behind 16 by name
    return sorted(paths, key=_step, reverse=True) if newest_first else paths


def _step(path: Path) -> int:
    return int(path.parts[path.parts.index("checkpoints") + 1].partition(".")[0])
