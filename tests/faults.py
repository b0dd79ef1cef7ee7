"""Trainings that are killed at random moments and resumed, and a comparison with an uninterrupted run.

SIGKILL comes at a random moment of an attempt, or just before a random one of its file operations (killed.py), every
fifth time among those that write the result, so that every file is met half-written. SIGTERM comes at a random moment.
After each the same command is started again. A run that ends is compared bit by bit: its result, its metrics (except
times, rates and attempts) and every array of its last checkpoint.
"""

import collections
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from moe_jax import errors
from moe_jax.sweep.rundir import RunDir
from moe_jax.sweep.workdir import Workdir

ROOT = Path(__file__).resolve().parents[1]
# Times, rates and attempts differ between attempts; nothing else may.
DIFFERENT = {"tokens_per_second", "wall_seconds", "times", "attempts", "git_commit", "mfu"}
CONFIG = (
    "--config=configs/smoke.py:tiny", "--config.train.tokens=16384", "--config.checkpoint.every_steps=4",
    "--config.eval.every_steps=16", "--config.eval.sequences=64", "--config.skip_step.sigma_factor=3",
    "--config.skip_step.rolling_interval=8",
)  # fmt: skip
KILLED = Path(__file__).with_name("killed.py")
RESULT_OPERATIONS = 4  # from opening the result's file to the operation after its rename


def outcome(folder: RunDir) -> dict[str, Any]:
    """The result, metrics and bytes of every array of a finished run, without the fields that may differ."""
    result = {k: v for k, v in folder.result().to_json().items() if k not in DIFFERENT}
    metrics = [{k: v for k, v in line.items() if k not in DIFFERENT} for line in folder.read_metrics()]
    newest = max(int(p.name.split(".")[0]) for p in folder.checkpoints.glob("*.sha256.json"))
    return {"result": result, "metrics": metrics, "arrays": _arrays(folder.checkpoints / str(newest))}


def _arrays(checkpoint: Any) -> dict[str, bytes]:
    import jax
    import orbax.checkpoint as ocp

    handler = ocp.PyTreeCheckpointHandler()
    with ocp.Checkpointer(handler) as checkpointer:
        tree = checkpointer.metadata(checkpoint).item_metadata.tree
        numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        arrays = checkpointer.restore(checkpoint, args=ocp.args.PyTreeRestore(restore_args=numpy))
    flat, _ = jax.tree_util.tree_flatten_with_path(arrays)
    return {jax.tree_util.keystr(path): np.asarray(array).tobytes() for path, array in flat}


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """The names of the fields, metrics and arrays in which two outcomes differ."""
    words = [f"result.{k}" for k in _unequal(found["result"], wanted["result"])]
    if [m["step"] for m in found["metrics"]] != [m["step"] for m in wanted["metrics"]]:
        words.append("metrics: other steps")
    else:
        pairs = zip(found["metrics"], wanted["metrics"], strict=True)
        words += [f"metrics[{b['step']}].{k}" for a, b in pairs for k in _unequal(a, b)]
    return words + [f"arrays{k}" for k in _unequal(found["arrays"], wanted["arrays"])]


def _unequal(a: dict[str, Any], b: dict[str, Any]) -> list[str]:
    return [key for key in sorted(a.keys() | b.keys()) if (key in a) != (key in b) or a.get(key) != b.get(key)]


class Run:
    """One training in its own workdir, started as often as it takes."""

    def __init__(self, flags: list[str], workdir: Path, environment: dict[str, str]):
        self.flags, self.workdir, self.environment = flags, workdir, environment
        self._result: tuple[int, int] | None = None  # inode and time of result.json, once it is there
        self._attempts, self._unfinished = 0, set()  # before the newest attempt

    def start(self, operation: str = "0") -> subprocess.Popen:
        """Starts an attempt that kills itself before the given file operation (killed.py; "0": none)."""
        self._attempts = len(self.folder.attempts()) if self.folder else 0
        self._unfinished = self._unfinished_steps()
        command = [sys.executable, str(KILLED), operation, *self.flags, f"--workdir={self.workdir}"]
        return subprocess.Popen(
            [*command, "--heartbeat_seconds=0.1"], cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    @property
    def folder(self) -> RunDir | None:
        found = list(self.workdir.glob("runs/*"))
        return Workdir(str(self.workdir)).run_dir(found[0].name) if found else None

    def phase_when_killed(self) -> str:
        """The phase in which the last attempt was killed, judged by the files that it left."""
        folder = self.folder
        if folder is None or len(folder.attempts()) == self._attempts:
            return "starting"
        if folder.result_path.exists():
            return "after its result"
        if list(folder.path.glob(".result.json.*")):
            return "writing its result"
        if self._unfinished_steps() - self._unfinished:
            return "writing a checkpoint"
        beat = folder.heartbeat()
        return beat.phase if beat is not None and beat.attempt == self._attempts + 1 else "starting"

    def _unfinished_steps(self) -> set[tuple[str, int]]:
        """Names and inodes of the checkpoints without a digest."""
        if self.folder is None or not self.folder.checkpoints.exists():
            return set()
        found = list(os.scandir(self.folder.checkpoints))
        names = {entry.name for entry in found}
        return {(e.name, e.inode()) for e in found if e.is_dir() and f"{e.name}.sha256.json" not in names}

    def check_result_is_written_once(self) -> None:
        folder = self.folder
        if folder is None or not folder.result_path.exists():
            return
        stat = os.stat(folder.result_path)
        seen = (stat.st_ino, stat.st_mtime_ns)
        if self._result not in (None, seen):
            raise AssertionError(f"{folder.result_path} was written again")
        self._result = seen


class FaultTest:
    """Runs that are interrupted until there were enough interruptions, and compared when they end."""

    def __init__(self, flags: list[str], scratch: Path, environment: dict[str, str], seed: int):
        self._flags, self._scratch, self._environment = flags, scratch, environment
        self._random = random.Random(seed)  # noqa: S311 (not a secret)
        self._n_runs = 0
        undisturbed = self._new_run()
        began = time.monotonic()
        self.operations = self._finish(undisturbed)  # also fills the compilation cache
        self.cold_seconds = time.monotonic() - began
        self.wanted = outcome(undisturbed.folder)
        began = time.monotonic()
        self._finish(again := self._new_run())
        self.lifetime = time.monotonic() - began
        self._compare(again)

    def _new_run(self) -> Run:
        self._n_runs += 1
        return Run(self._flags, self._scratch / f"run{self._n_runs}", self._environment)

    def _finish(self, run: Run) -> int:
        """Trains the run to its end; returns the number of file operations."""
        process = run.start()
        said = process.communicate(timeout=600)[0]
        if process.returncode != errors.DONE:
            raise AssertionError(f"an uninterrupted attempt ended with {process.returncode}:\n{said}")
        run.check_result_is_written_once()
        return int(said.splitlines()[-1].split()[0])

    def _compare(self, run: Run) -> None:
        if words := differences(outcome(run.folder), self.wanted):
            raise AssertionError(f"{run.workdir}: differs from the uninterrupted run: {', '.join(words)}")

    def kill(self, kills: int) -> collections.Counter[str]:
        """Sends so many SIGKILLs; returns how many hit each phase."""
        hit: collections.Counter[str] = collections.Counter()
        run = self._new_run()
        while hit.total() < kills:
            by = ("clock", "file", "result", "file", "clock")[hit.total() % 5]
            process = run.start(self._operation(by))
            if by == "clock":
                try:
                    process.wait(self._random.uniform(0, self.lifetime))
                except subprocess.TimeoutExpired:
                    process.kill()
            said = process.communicate(timeout=600)[0]
            run.check_result_is_written_once()
            if process.returncode == -signal.SIGKILL:
                hit[run.phase_when_killed()] += 1
            elif process.returncode != errors.DONE:
                raise AssertionError(f"an attempt ended with {process.returncode}:\n{said}")
            if run.folder and run.folder.result() is not None:
                run = self._done(run)
        self._done(run)
        return hit

    def _operation(self, by: str) -> str:
        if by == "result":
            return f"result+{self._random.randint(1, RESULT_OPERATIONS)}"
        return str(self._random.randint(1, self.operations) if by == "file" else 0)

    def stop(self, stops: int) -> tuple[collections.Counter[int], list[float]]:
        """Sends so many SIGTERMs; returns the exit codes and the seconds from each signal to the end."""
        codes: collections.Counter[int] = collections.Counter()
        seconds = []
        run = self._new_run()
        while codes.total() < stops:
            process = run.start()
            try:
                process.wait(self._random.uniform(0, self.lifetime))
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGTERM)
                began = time.monotonic()
                said = process.communicate(timeout=600)[0]
                seconds.append(time.monotonic() - began)
                codes[process.returncode] += 1
                # Python itself was still starting: it ends with the signal's own code.
                early = process.returncode == -signal.SIGTERM and not said
                if process.returncode not in (errors.DONE, errors.STOPPED) and not early:
                    raise AssertionError(f"SIGTERM ended an attempt with {process.returncode}:\n{said}") from None
            process.stdout.close()
            run.check_result_is_written_once()
            if run.folder and run.folder.result() is not None:
                run = self._done(run)
        self._done(run)
        return codes, seconds

    def _done(self, run: Run) -> Run:
        """Finishes the run (a no-op if it is finished), compares it, and returns the next run."""
        self._finish(run)
        self._compare(run)
        return self._new_run()
