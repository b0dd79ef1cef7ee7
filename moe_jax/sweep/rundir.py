"""The folder of one run: reads and writes its files (workdir.py lists them), and says which process owns the run."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from etils import epath

from moe_jax import files
from moe_jax.errors import UserError, WorkFailed
from moe_jax.sweep.attempt import Attempt
from moe_jax.sweep.evaluation_record import EvaluationRecord
from moe_jax.sweep.heartbeat import Heartbeat
from moe_jax.sweep.result import Result
from moe_jax.sweep.routing_record import RoutingRecord
from moe_jax.sweep.run_record import RunRecord
from moe_jax.text import number

T = TypeVar("T")


class RunDir:
    """The folder of one run, or of a trunk; local or gs://."""

    def __init__(self, path: epath.Path):
        self.path = path
        self.name = path.name

    @property
    def checkpoints(self) -> epath.Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> epath.Path:
        return self.path / "metrics.jsonl"

    @property
    def result_path(self) -> epath.Path:
        return self.path / "result.json"

    @property
    def run_record_path(self) -> epath.Path:
        return self.path / "run.json"

    @property
    def log(self) -> epath.Path:
        """What the run printed, if sweep started it."""
        return self.path / "log.txt"

    def create(self) -> None:
        """Makes the folder, unless it is there."""
        (self.path / "attempts").mkdir(parents=True, exist_ok=True)

    def lock(self, wait_seconds: float) -> int | None:
        """Locks the run for this process, until the descriptor is closed or the process ends; None on an object store.

        Raises WorkFailed if another process holds the lock for longer than `wait_seconds`."""
        if files.is_remote(self.path):
            return None
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        until = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() >= until:
                    os.close(lock)
                    raise WorkFailed(
                        f"{self.name}: another process on this machine trains this run; wait for it or stop it"
                    ) from None
                time.sleep(0.2)

    def is_locked(self) -> bool:
        """Whether a process on this machine trains the run now."""
        try:
            lock = self.lock(0.0) if self.path.exists() else None
        except WorkFailed:
            return True
        if lock is not None:
            os.close(lock)
        return False

    def saved_steps(self) -> list[int]:
        """Steps with a complete checkpoint, oldest first. The digest is written last, so it marks a complete one."""
        if not self.checkpoints.is_dir():
            return []
        names = (p.name.removesuffix(".sha256.json") for p in self.checkpoints.glob("*.sha256.json"))
        return sorted(int(name) for name in names if name.isdecimal())

    def saved(self, step: int) -> dict[str, Any]:
        """The digests and notes of a complete checkpoint; {} if they cannot be read."""
        try:
            return files.read_sealed(self.checkpoints / f"{step}.sha256.json")
        except (FileNotFoundError, files.DamagedFile):
            return {}

    def config_hashes(self) -> set[str]:
        """The config hashes that its result, its checkpoints and, if it has one of these, run.json name.

        A sound folder has one, a folder where nothing was saved has none."""
        saved = self.saved_steps()
        hashes = [self.saved(step).get("config_hash") for step in saved]
        with contextlib.suppress(files.DamagedFile):
            if (result := self.result()) is not None:
                hashes.append(result.config_hash)
        if saved or self.result_path.exists():
            with contextlib.suppress(files.DamagedFile):
                if (run := self.run_record()) is not None:
                    hashes.append(run.config_hash)
        return {found for found in hashes if isinstance(found, str)}

    def result(self) -> Result | None:
        """result.json, or None if there is none. Raises DamagedFile, also if it is another run's."""
        return _read(self.result_path, lambda values: Result.from_json(values, self.name))

    def set_damaged_result_aside(self) -> epath.Path:
        """Renames result.json; its new path."""
        aside = self.result_path.with_name(f"result.json.damaged-{int(time.time())}")
        self.result_path.rename(aside)
        return aside

    def write_result(self, result: Result) -> None:
        files.write_sealed(self.result_path, result.to_json())

    def write_run_record(self, run: RunRecord) -> None:
        files.write_sealed(self.run_record_path, run.to_json())

    def run_record(self) -> RunRecord | None:
        """run.json, or None if there is none. Raises DamagedFile if a run did not write it."""
        return _read(self.run_record_path, RunRecord.from_json)

    def write_evaluation(self, evaluation: EvaluationRecord) -> epath.Path:
        """Writes evaluations/KIND-OF.json, in the place of an older one; its path."""
        path = self.path / "evaluations" / f"{evaluation.kind}-{evaluation.of}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_sealed(path, evaluation.to_json())
        return path

    def evaluation_paths(self) -> list[epath.Path]:
        """The files of the run's evaluations, by name. Raises UnreadableFile for the folder."""
        folder = self.path / "evaluations"
        try:
            names = files.names_in(folder)
        except OSError as e:
            raise files.UnreadableFile(f"{folder}: cannot be read ({e.strerror})") from e
        return [folder / name for name in sorted(names) if name.endswith(".json")]

    def evaluations(self) -> list[EvaluationRecord]:
        """The run's evaluations, by file name. Raises DamagedFile, also if one is another run's."""
        paths = self.evaluation_paths()
        found = (_read(path, lambda values: EvaluationRecord.from_json(values, self.name)) for path in paths)
        return [evaluation for evaluation in found if evaluation is not None]

    def write_routing(self, routing: RoutingRecord) -> epath.Path:
        """Writes routing.json, in the place of an older one; its path."""
        files.write_sealed(path := self.path / "routing.json", routing.to_json())
        return path

    def routing(self) -> RoutingRecord | None:
        """routing.json, or None if there is none. Raises DamagedFile, also if it is another run's."""
        return _read(self.path / "routing.json", lambda values: RoutingRecord.from_json(values, self.name))

    def write_heartbeat(self, heartbeat: Heartbeat) -> None:
        files.write_json(self.path / "heartbeat.json", heartbeat.to_json())

    def heartbeat(self) -> Heartbeat | None:
        """The newest heartbeat, or None if there is none that can be read. Raises OSError for the folder."""
        try:
            return Heartbeat.from_json(files.read_json(self.path / "heartbeat.json"))
        except (FileNotFoundError, files.DamagedFile):
            return None

    def attempts(self) -> list[Attempt]:
        """Every start so far, oldest first. A start whose file cannot be read counts, with unknown values. Raises
        OSError for the folder."""
        return [self.attempt(number) for number in self.attempt_numbers()]

    @property
    def newest_attempt(self) -> int:
        """The number of the newest start; 0 if there was none."""
        return max(self.attempt_numbers(), default=0)

    def begin_attempt(self, token: str = "") -> int:
        """Records a start, which owns the run from now on. Returns its number, from 1. `token` tells it from any other
        start."""
        number = self.newest_attempt + 1
        self._write_attempt(number, Attempt(began=time.time(), token=token))
        return number

    def has_attempt(self, number: int) -> bool:
        """Whether the start is still recorded: it is, unless somebody has removed the folder."""
        return self._attempt_path(number).exists()

    def check_newest(self, number: int, token: str) -> None:
        """Raises UserError if a later start has taken the run: the newest owns it. This is for object stores and for
        folders that several machines share, where `lock` does not exclude anybody.

        Between two calls both starts may write. A step that both save at once may not match its digests and is then
        skipped, so progress can be lost; a result cannot be wrong."""
        if self._attempt_path(number + 1).exists() or self.attempt(number).token not in (None, token):
            raise UserError(f"{self.name}: a later start has taken this run; this one ends and leaves it to that one")

    def end_attempt(self, number: int, code: int, sentence: str, token: str = "") -> None:
        """Records how a start ended, unless that is recorded already: a launcher calls this after its child did.
        With a `token`, does nothing if another start has that number."""
        attempt = self.attempt(number)
        if attempt.ended is None and not (token and attempt.token not in (None, token)):
            self._write_attempt(number, attempt.as_ended(time.time(), code, sentence))

    def attempt(self, number: int) -> Attempt:
        """A start, by its number; one whose file cannot be read has unknown values."""
        try:
            return Attempt.from_json(files.read_json(self._attempt_path(number)))
        except (FileNotFoundError, files.DamagedFile):
            return Attempt()

    def _write_attempt(self, number: int, attempt: Attempt) -> None:
        files.write_json(self._attempt_path(number), attempt.to_json())

    def attempt_numbers(self) -> list[int]:
        """The number of every start so far, oldest first."""
        stems = (
            name.removesuffix(".json") for name in files.names_in(self.path / "attempts") if name.endswith(".json")
        )
        return sorted(int(stem) for stem in stems if stem.isdecimal())

    def _attempt_path(self, number: int) -> epath.Path:
        return self.path / "attempts" / f"{number}.json"

    def write_metrics(self, lines: Sequence[dict[str, Any]]) -> None:
        data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        files.write_atomic(self.metrics, data.encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged steps in order; a torn or damaged line ends the list, and a file that cannot be read has none."""
        try:
            return self.logged()[0]
        except (files.UnreadableFile, OSError):
            return []

    def logged(self) -> tuple[list[dict[str, Any]], bool]:
        """The logged steps as `read_metrics` gives them, and whether they are the whole file. Raises UnreadableFile:
        what the file holds must not be lost."""
        try:
            text = files.read_file(self.metrics).decode(errors="replace")
        except FileNotFoundError:
            return [], True
        except files.UnreadableFile:
            raise
        except files.DamagedFile:
            return [], False
        read: list[dict[str, Any]] = []
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                if not (all(map(_is_logged, entry.values())) and entry["step"] > (read[-1]["step"] if read else -1)):
                    return read, False
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                return read, False
            read.append(entry)
        return read, True


def _read(path: epath.Path, parse: Callable[[dict[str, Any]], T]) -> T | None:
    """A sealed file as `parse` reads it; None if there is none. Raises DamagedFile if `parse` raises UserError."""
    try:
        values = files.read_sealed(path)
    except FileNotFoundError:
        return None
    try:
        return parse(values)
    except UserError as e:
        raise files.DamagedFile(f"{path}: is damaged ({e})") from e


def _is_logged(value: Any) -> bool:
    """Whether write_metrics would write it: Python's parser takes NaN and infinities, which are no JSON."""
    if isinstance(value, list):
        return all(map(_is_logged, value))
    return value is None or number(value) is not None
