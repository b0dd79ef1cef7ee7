"""Kills a tiny training at random moments and compares what it leaves with that of a run that nobody stopped:

    python experiments/benchmarks/faults.py [--kills=30] [--stops=10] [--seed=0]

SIGKILL comes by the clock, at any moment of a start's life, and by the file, just before a random one of its file
operations (killed.py), every fifth time among those that write the result: so that all is met half-written too. SIGTERM
comes by the clock. After each the same command is started again; a run that ends is compared, to the bit, in its
result, its metrics (all but times, rates and attempts) and every array of its last checkpoint. About 5 s a kill; ends
with 1 on the first difference.
"""

import argparse
import collections
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from moe_jax import errors
from moe_jax.rundir import RunDir
from moe_jax.workdir import Workdir

# Times, rates and attempts differ from start to start; nothing else may.
DIFFERENT = {"tokens_per_second", "wall_seconds", "times", "attempts", "git_commit", "mfu"}
CONFIG = (
    "--config=configs/smoke.py:tiny", "--config.train.tokens=16384", "--config.checkpoint.every_steps=4",
    "--config.eval.every_steps=16", "--config.eval.sequences=64", "--config.guard.factor=3", "--config.guard.window=8",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
KILLED = Path(__file__).with_name("killed.py")
RESULT_OPERATIONS = 4  # from opening the result's file to what follows its rename


def outcome(folder: RunDir) -> dict[str, Any]:
    """What a finished run leaves, without what may differ: result, metrics, and the bytes of every array."""
    result = {k: v for k, v in folder.result().items() if k not in DIFFERENT}
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
    """In words, where two outcomes differ."""
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
    """One training in a workdir of its own, started as often as it takes."""

    def __init__(self, flags: list[str], workdir: Path, environment: dict[str, str]):
        self.flags, self.workdir, self.environment = flags, workdir, environment
        self._result: tuple[int, int] | None = None  # inode and time of result.json, once it is there
        self._attempts, self._unfinished = 0, set()  # before the newest start

    def start(self, operation: str = "0") -> subprocess.Popen:
        """A start that kills itself before that file operation, as killed.py says."""
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

    def where(self) -> str:
        """What the killed start was at, from what it left."""
        folder = self.folder
        if folder is None or len(folder.attempts()) == self._attempts:
            return "starting"
        if folder.result_path.exists():
            return "after its result"
        if list(folder.path.glob(".result.json.*")):
            return "writing its result"
        if self._unfinished_steps() - self._unfinished:
            return "writing a checkpoint"
        beat = folder.heartbeat() or {}
        return beat["phase"] if beat.get("attempt") == self._attempts + 1 else "starting"

    def _unfinished_steps(self) -> set[tuple[str, int]]:
        """Names and inodes of checkpoints without a digest."""
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


class Attack:
    """Runs that are killed until enough kills have been made, and compared when they end."""

    def __init__(self, flags: list[str], scratch: Path, environment: dict[str, str], seed: int):
        self._flags, self._scratch, self._environment = flags, scratch, environment
        self._random = random.Random(seed)  # noqa: S311 (moments, not secrets)
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
        """Lets it train to its end; how many file operations that took."""
        process = run.start()
        said = process.communicate(timeout=600)[0]
        if process.returncode != errors.DONE:
            raise AssertionError(f"a start that nobody killed ended with {process.returncode}:\n{said}")
        run.check_result_is_written_once()
        return int(said.splitlines()[-1].split()[0])

    def _compare(self, run: Run) -> None:
        if words := differences(outcome(run.folder), self.wanted):
            raise AssertionError(f"{run.workdir}: differs from the run that nobody stopped: {', '.join(words)}")

    def kill(self, kills: int) -> collections.Counter[str]:
        """SIGKILL so often; how often each place was hit."""
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
                hit[run.where()] += 1
            elif process.returncode != errors.DONE:
                raise AssertionError(f"a start ended with {process.returncode}:\n{said}")
            if run.folder and run.folder.result() is not None:
                run = self._done(run)
        self._done(run)
        return hit

    def _operation(self, by: str) -> str:
        if by == "result":
            return f"result+{self._random.randint(1, RESULT_OPERATIONS)}"
        return str(self._random.randint(1, self.operations) if by == "file" else 0)

    def stop(self, stops: int) -> tuple[collections.Counter[int], list[float]]:
        """SIGTERM so often; (exit codes, seconds from the signal to the end)."""
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
                # The signal's own code: Python itself was still starting.
                early = process.returncode == -signal.SIGTERM and not said
                if process.returncode not in (errors.DONE, errors.STOPPED) and not early:
                    raise AssertionError(f"SIGTERM ended a start with {process.returncode}:\n{said}") from None
            process.stdout.close()
            run.check_result_is_written_once()
            if run.folder and run.folder.result() is not None:
                run = self._done(run)
        self._done(run)
        return codes, seconds

    def _done(self, run: Run) -> Run:
        """Finishes (a no-op where it is finished), compares, and gives the next run."""
        self._finish(run)
        self._compare(run)
        return self._new_run()


def environment(scratch: Path) -> dict[str, str]:
    """Children share one compilation cache, so that a start costs few seconds."""
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(scratch / "xla"), "XLA_FLAGS": ""}


def prepare(scratch: Path) -> str:
    store = scratch / "store"
    subprocess.run(
        [sys.executable, "-m", "moe_jax.prepare", f"--store={store}"], check=True, cwd=ROOT, stdout=subprocess.DEVNULL
    )
    return str(store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        config = [*CONFIG, f"--config.data.store={prepare(scratch)}"]
        attack = Attack(config, scratch, environment(scratch), flags.seed)
        console.print(f"a start's life: {attack.lifetime:.1f} s, {attack.operations} file operations")
        table = Table("SIGKILL while", "times")
        for place, times in attack.kill(flags.kills).most_common():
            table.add_row(place, str(times))
        console.print(table)
        codes, seconds = attack.stop(flags.stops)
        table = Table("SIGTERM's exit code", "times")
        for code, times in codes.most_common():
            table.add_row(str(code), str(times))
        console.print(table)
        if seconds:
            console.print(f"seconds from SIGTERM to the end: median {np.median(seconds):.1f}, max {max(seconds):.1f}")
        console.print("every run equal, to the bit, to the one that nobody stopped")


if __name__ == "__main__":
    main()
