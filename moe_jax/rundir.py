"""The files of one run (workdir.py lists them): who reads, who writes, and who owns the run."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from moe_jax import files, resultfile
from moe_jax.errors import UserError, WorkFailed
from moe_jax.tables import number


class RunDir:
    """The files of one run."""

    def __init__(self, path: epath.Path):
        self.path = path
        self.name = path.name
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.result_path = path / "result.json"
        self.log = path / "log.txt"  # what the run printed, where sweep started it

    def create(self) -> None:
        (self.path / "attempts").mkdir(parents=True, exist_ok=True)

    def lock(self, wait_seconds: float) -> int | None:
        """Takes the run for this process until the descriptor is closed or the process ends; None on an object store.

        Raises WorkFailed where another process keeps it for longer than `wait_seconds`."""
        if "://" in str(self.path):
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
                        f"{self.name}: another process on this machine trains it; wait for it or stop it"
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
        """Steps whose checkpoint is complete, oldest first: those that have a digest, which is written last."""
        if not self.checkpoints.exists():
            return []
        names = (p.name.removesuffix(".sha256.json") for p in self.checkpoints.glob("*.sha256.json"))
        return sorted(int(name) for name in names if name.isdecimal())

    def saved(self, step: int) -> dict[str, Any]:
        """What is noted of a complete checkpoint, its digests among it; {} where that cannot be read."""
        try:
            return files.read_json(self.checkpoints / f"{step}.sha256.json")
        except (FileNotFoundError, files.DamagedFile):
            return {}

    def config_hashes(self) -> set[str]:
        """Of which configs its result and its checkpoints are, as they and run.json say: one in a sound folder, none
        where nothing was saved."""
        saved = self.saved_steps()
        made = [self.saved(step) for step in saved]
        with contextlib.suppress(files.DamagedFile):
            made.append(self.result() or {})
        if saved or self.result_path.exists():
            with contextlib.suppress(files.DamagedFile):
                made.append(self.run() or {})
        return {one["config_hash"] for one in made if isinstance(one.get("config_hash"), str)}

    def result(self) -> dict[str, Any] | None:
        """result.json, or None. Raises DamagedFile, also where it is not this run's or has not what a result has."""
        try:
            result = files.read_json(self.result_path)
        except FileNotFoundError:
            return None
        if (what := resultfile.fault(result, self.name)) is not None:
            raise files.DamagedFile(f"{self.result_path}: is damaged ({what})")
        return result

    def set_damaged_result_aside(self) -> epath.Path:
        aside = self.result_path.with_name(f"result.json.damaged-{int(time.time())}")
        self.result_path.rename(aside)
        return aside

    def write_result(self, result: dict[str, Any]) -> None:
        files.write_json(self.result_path, result)

    def write_run(self, run: dict[str, Any]) -> None:
        files.write_json(self.path / "run.json", run)

    def run(self) -> dict[str, Any] | None:
        try:
            return files.read_json(self.path / "run.json")
        except FileNotFoundError:
            return None

    def write_heartbeat(self, beat: dict[str, Any]) -> None:
        files.write_json(self.path / "heartbeat.json", beat | {"time": time.time()})

    def heartbeat(self) -> dict[str, Any] | None:
        """The newest sign of life, or None where there is none that can be read."""
        try:
            return files.read_json(self.path / "heartbeat.json")
        except (FileNotFoundError, files.DamagedFile):
            return None

    def attempts(self) -> list[dict[str, Any]]:
        """Every start so far, oldest first; those that cannot be read count, as {}."""
        read = []
        for start in self._attempt_numbers():
            try:
                read.append(files.read_json(self._attempt_path(start)))
            except files.DamagedFile:
                read.append({})
        return read

    @property
    def newest_attempt(self) -> int:
        """The number of the newest start; 0 where there was none."""
        return max(self._attempt_numbers(), default=0)

    def begin_attempt(self, token: str = "") -> int:
        """Notes a start, which owns the run from here on; its number, from 1. `token` tells it from any other."""
        number = self.newest_attempt + 1
        files.write_json(self._attempt_path(number), {"began": time.time(), "token": token})
        return number

    def has_attempt(self, number: int) -> bool:
        """Whether the start is still noted: it is unless somebody has removed the folder."""
        return self._attempt_path(number).exists()

    def check_newest(self, number: int, token: str) -> None:
        """Raises UserError where a later start has taken the run: the newest wins. For object stores and folders that
        several machines share, where `lock` keeps nobody off.

        Between two calls both starts write. A step that both save at once may not match its digests and is then
        skipped, so progress can be lost; a result cannot be wrong."""
        if self._attempt_path(number + 1).exists() or self._token(number) not in (None, token):
            raise UserError(f"{self.name}: a later start has taken this run; this one ends and leaves it to that one")

    def end_attempt(self, number: int, code: int, sentence: str, token: str = "") -> None:
        """Notes how a start ended, unless that is noted already: a launcher asks for this after its child did.
        With a `token`, only if the start is still that one."""
        if token and self._token(number) not in (None, token):
            return
        path = self._attempt_path(number)
        try:
            attempt = files.read_json(path)
        except (FileNotFoundError, files.DamagedFile):
            attempt = {}
        if "ended" not in attempt:
            files.write_json(path, attempt | {"ended": time.time(), "exit_code": code, "sentence": sentence[-2000:]})

    def _token(self, number: int) -> str | None:
        """Of the start with this number, None where it cannot be read."""
        try:
            return files.read_json(self._attempt_path(number)).get("token")
        except (FileNotFoundError, files.DamagedFile):
            return None

    def _attempt_numbers(self) -> list[int]:
        folder = self.path / "attempts"
        if not folder.exists():
            return []
        return sorted(int(p.stem) for p in folder.iterdir() if p.suffix == ".json" and p.stem.isdecimal())

    def _attempt_path(self, number: int) -> epath.Path:
        return self.path / "attempts" / f"{number}.json"

    def write_metrics(self, lines: Sequence[dict[str, Any]]) -> None:
        data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        files.write_atomic(self.metrics, data.encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged steps in order; a torn or damaged line ends the list."""
        return self.logged()[0]

    def logged(self) -> tuple[list[dict[str, Any]], bool]:
        """(read_metrics, whether that is the whole file)."""
        try:
            text = self.metrics.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return [], True
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


def _is_logged(value: Any) -> bool:
    """Whether write_metrics would write it: JSON's parser takes NaN and infinities, and they are no JSON."""
    if isinstance(value, list):
        return all(map(_is_logged, value))
    return value is None or number(value) is not None
