"""collected.json: what `collect` has read of every finished run, so that the next reader opens only what has changed.

An entry holds while result.json, run.json and evaluations/*.json are the files that were read: of the same size, inode
and times of change, to the nanosecond. Everything else is read again: what was replaced, edited or torn since, what
nobody has read yet, and all runs where collected.json is missing or damaged. On an object store nothing is kept, since
to ask whether an object has changed takes as long as to read it.
"""

import contextlib
import os
import time
from typing import Any

from etils import epath

from moe_jax import files, records
from moe_jax.errors import UserError
from moe_jax.sweep import results
from moe_jax.sweep.evaluation_record import EvaluationRecord
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.result import Result
from moe_jax.sweep.results import Finished
from moe_jax.sweep.rundir import RunDir
from moe_jax.sweep.workdir import Workdir

# A file that changed so shortly before it was read is read again: within one tick of a file system's clock it might
# change once more and show the same time.
_UNSETTLED_NS = 2 * 10**9


class KnownResults:
    """The results in a workdir; those that collected.json holds are not read from their own files again."""

    def __init__(self, work: Workdir):
        self._path = work.path / "collected.json"
        self._before = {} if files.is_remote(self._path) else _read(self._path)
        self._now: dict[str, Any] = {}
        self._results: dict[str, Result] = {}  # of the entries, as far as they were asked for

    def result(self, folder: RunDir) -> Result | None:
        """As RunDir.result."""
        entry = self._before.get(folder.name)
        with contextlib.suppress(UserError, KeyError, TypeError, AttributeError):
            if entry is not None and _seen(folder.result_path) == entry["files"]["result.json"]:
                return self._result(folder.name)
        return folder.result()

    def finished(self, run: PlannedRun, folder: RunDir) -> Finished | None:
        """As results.finished_run; what it finds is what `write` writes."""
        seen = {path.name: _seen(path) for path in (folder.result_path, folder.run_record_path)}
        seen |= {f"{path.parent.name}/{path.name}": _seen(path) for path in folder.evaluation_paths()}
        entry = self._before.get(run.name)
        if entry is not None and None not in seen.values() and seen == entry.get("files"):
            with contextlib.suppress(UserError, KeyError, TypeError):
                if not records.is_of(entry["train_tokens"], int | None):
                    raise TypeError("train_tokens")
                evaluations = [EvaluationRecord.from_json(values, run.name) for values in entry["evaluations"]]
                known = Finished(self._result(run.name), entry["store_sha256"], entry["train_tokens"], evaluations)
                if results.is_as_planned(known.result, run):
                    self._now[run.name] = entry
                    return known
        found = results.finished_run(run, folder)
        if found is not None and all(map(_is_settled, seen.values())):
            self._now[run.name] = {
                "files": seen,
                "result": found.result.to_json(),
                "store_sha256": found.store_sha256,
                "train_tokens": found.train_tokens,
                "evaluations": [evaluation.to_json() for evaluation in found.evaluations],
            }
        return found

    def _result(self, name: str) -> Result:
        if name not in self._results:
            self._results[name] = Result.from_json(self._before[name]["result"], name)
        return self._results[name]

    def write(self) -> None:
        """Keeps what `finished` has found for the next reader. Where that cannot be written, it reads all."""
        if self._now != self._before:
            with contextlib.suppress(OSError):
                files.write_sealed(self._path, {"runs": self._now})


def _read(path: epath.Path) -> dict[str, Any]:
    try:
        runs = files.read_sealed(path).get("runs")
    except (OSError, files.DamagedFile):
        return {}
    entries = runs.items() if isinstance(runs, dict) else ()
    return {name: entry for name, entry in entries if isinstance(entry, dict)}


def _seen(path: epath.Path) -> list[int] | None:
    """What changes with a local file: its size, inode, and when it was written or replaced; None for any other."""
    if files.is_remote(path):
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _is_settled(seen: list[int] | None) -> bool:
    return seen is not None and time.time_ns() - max(seen[2:]) > _UNSETTLED_NS
