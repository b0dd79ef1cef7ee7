"""The one owner of a sweep's files: where they are, what is in them, who may change them.

W/sweep.json                  every run's name, overrides, config, counts and hash
W/runs/<name>/run.json        what is run, with what, on what; before step 0
W/runs/<name>/heartbeat.json  the newest sign of life
W/runs/<name>/attempts/<n>.json   one per start
W/runs/<name>/metrics.jsonl   one object a logged step
W/runs/<name>/checkpoints/    Orbax
W/runs/<name>/result.json     once, at the end
W/trunks/<name>/              as a run, without result.json (see jobs.py)
"""

import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from moe_jax import config as config_lib
from moe_jax import counts, files
from moe_jax.errors import UserError, WorkFailed
from moe_jax.grid import Run, config_hash
from moe_jax.tables import number

STALE_SECONDS = 300  # a run without a sign of life for so long, and without a result, is stale


@dataclasses.dataclass(frozen=True)
class StoreIdentity:
    """What a sweep remembers of the store that it was made for."""

    path: str
    sha256: str
    vocabulary_size: int


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of the manifest."""

    name: str
    overrides: dict[str, Any]
    config: config_lib.Config
    counts: dict[str, Any]  # counts.Counts and counts.Flops, flat
    config_hash: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """sweep.json."""

    sweep: str  # at most 7 characters, of the job names
    config_flags: str  # the flags that the sweep was made with
    store: StoreIdentity
    runs: tuple[PlannedRun, ...]

    def run(self, name: str) -> PlannedRun:
        """Raises UserError where the sweep has no such run."""
        for run in self.runs:
            if run.name == name:
                return run
        raise UserError(
            f"--run={name}: the sweep has no such run; it has {', '.join(r.name for r in self.runs[:4])}, …"
        )


def plan_runs(runs: Sequence[Run], store: StoreIdentity) -> tuple[PlannedRun, ...]:
    """Runs with their counts and hashes for a store's vocabulary."""
    planned = []
    for run in runs:
        V = run.config.model.vocabulary_size or store.vocabulary_size
        if store.vocabulary_size > V:
            config_lib.refuse(
                "model.vocabulary_size", V, f"the store {store.path} has token ids up to {store.vocabulary_size}"
            )
        flat = dataclasses.asdict(counts.count_parameters(run.config, V)) | dataclasses.asdict(
            counts.count_flops(run.config, V)
        )
        flat |= {"steps": run.config.steps, "vocabulary_size": V}
        hashed = config_hash(run.config, store.sha256, V)
        planned.append(PlannedRun(run.name, dict(run.overrides), run.config, flat, hashed))
    return tuple(planned)


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

    def result(self) -> dict[str, Any] | None:
        """result.json, or None. Raises DamagedFile."""
        try:
            return files.read_json(self.result_path)
        except FileNotFoundError:
            return None

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
        folder = self.path / "attempts"
        if not folder.exists():
            return []
        numbered = sorted((int(p.stem), p) for p in folder.iterdir() if p.suffix == ".json" and p.stem.isdecimal())
        read = []
        for _, path in numbered:
            try:
                read.append(files.read_json(path))
            except files.DamagedFile:
                read.append({})
        return read

    def begin_attempt(self, token: str = "") -> int:
        """Notes a start, which owns the run from here on; its number, from 1. `token` tells it from any other."""
        number = len(self.attempts()) + 1
        files.write_json(self._attempt_path(number), {"began": time.time(), "token": token})
        return number

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

    def _attempt_path(self, number: int) -> epath.Path:
        return self.path / "attempts" / f"{number}.json"

    def write_metrics(self, lines: Sequence[dict[str, Any]]) -> None:
        data = "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)
        files.write_atomic(self.metrics, data.encode())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged steps in order; a torn or damaged line ends the list."""
        try:
            text = self.metrics.read_bytes().decode(errors="replace")
        except FileNotFoundError:
            return []
        read: list[dict[str, Any]] = []
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                if not entry["step"] > (read[-1]["step"] if read else -1):
                    break
            except (ValueError, KeyError, TypeError):
                break
            read.append(entry)
        return read


class Workdir:
    """A sweep's folder, local or gs://."""

    def __init__(self, path: str):
        if not path:
            raise UserError("--workdir: give the folder of the sweep")
        self.path = epath.Path(path)

    def run_dir(self, name: str) -> RunDir:
        return RunDir(self.path / "runs" / name)

    def trunk_dir(self, name: str) -> RunDir:
        return RunDir(self.path / "trunks" / name)

    def set_run_aside(self, name: str) -> epath.Path | None:
        """Moves a run's folder aside, so that it is trained again; where to, or None where there is none."""
        folder = self.run_dir(name)
        if not folder.path.exists():
            return None
        if folder.is_locked():
            raise WorkFailed(f"--rerun={name}: a process on this machine trains it now; wait for it or stop it")
        aside = self.path / "aside" / f"{name}-{int(time.time())}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        return folder.path.rename(aside)

    def manifest(self) -> Manifest | None:
        """sweep.json, or None. Raises DamagedFile, or UserError where another version wrote it."""
        path = self.path / "sweep.json"
        try:
            values = files.read_json(path)
        except FileNotFoundError:
            return None
        except NotADirectoryError as e:
            raise UserError(f"--workdir={self.path}: is not a folder") from e
        try:
            runs = tuple(
                PlannedRun(r["name"], r["overrides"], config_lib.from_dict(r["config"]), r["counts"], r["config_hash"])
                for r in values["runs"]
            )
            return Manifest(values["sweep"], values["config_flags"], StoreIdentity(**values["store"]), runs)
        except (KeyError, TypeError) as e:
            raise files.DamagedFile(f"{path}: is damaged ({type(e).__name__}: {e})") from e
        except UserError as e:
            raise files.DamagedFile(f"{path}: is damaged, or another version of moe_jax wrote it ({e})") from e

    def existing_manifest(self) -> Manifest:
        """sweep.json. Raises UserError where there is none."""
        manifest = self.manifest()
        if manifest is None:
            raise UserError(f"--workdir={self.path}: holds no sweep (no sweep.json); moe-jax sweep or train makes one")
        return manifest

    def accept(self, manifest: Manifest, *, whole: bool, writes: bool = True) -> Manifest:
        """Makes `manifest` the workdir's, or extends the one that is there; gives what then holds.

        A run that is there already must be the same run, but may be done in another way now: on another mesh, with
        other checkpoints. With `whole` (a grid) every run that is there must be in the
        new grid too; without (a single run) it joins the others. UserError names the first run that differs.
        Without `writes` nothing is written: another process does."""
        old = self.manifest()
        if old is None:
            accepted = manifest
        else:
            if old.store.sha256 != manifest.store.sha256:
                raise UserError(
                    f"--workdir={self.path}: holds a sweep on another token store ({old.store.path}); choose another"
                )
            new = {run.name: run for run in manifest.runs}
            for run in old.runs:
                if run.name in new and new[run.name].config_hash != run.config_hash:
                    raise UserError(
                        f"--workdir={self.path}: holds a sweep whose run {run.name} has another config"
                        f"{_first_difference(run.config, new[run.name].config)}; choose another workdir"
                    )
                if whole and run.name not in new:
                    raise UserError(
                        f"--workdir={self.path}: holds a sweep whose run {run.name} is not in this grid; "
                        "extend its grid, or choose another workdir"
                    )
            kept = tuple(dataclasses.replace(r, config=new.pop(r.name, r).config) for r in old.runs)
            accepted = dataclasses.replace(old, runs=kept + tuple(new.values()))
        if accepted == old or not writes:
            return accepted
        self.path.mkdir(parents=True, exist_ok=True)
        files.write_json(self.path / "sweep.json", _manifest_json(accepted))
        return accepted


def _manifest_json(manifest: Manifest) -> dict[str, Any]:
    values = dataclasses.asdict(manifest)
    return values | {"runs": list(values["runs"])}


def _first_difference(a: config_lib.Config, b: config_lib.Config) -> str:
    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        out = {}
        for key, value in values.items():
            out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return out

    old, new = flat(config_lib.to_dict(a)), flat(config_lib.to_dict(b))
    for field in old | new:
        if old.get(field) != new.get(field):
            return f" (config.{field} = {old.get(field)!r} there, {new.get(field)!r} here)"
    return " (the vocabulary differs)"


STATES = ("queued", "running", "stale", "failed", "diverged", "done", "damaged")


@dataclasses.dataclass(frozen=True)
class RunState:
    """What the files say of a run now."""

    name: str
    state: str  # one of STATES
    step: int
    steps: int
    beat: dict[str, Any]  # the newest heartbeat, {} if none
    result: dict[str, Any] | None
    attempts: int
    sentence: str  # the last attempt's last words, or what is wrong


def state_of(run: PlannedRun, folder: RunDir, now: float) -> RunState:
    """Done, running, stale, …: from files alone, so it works on gs:// and while the run goes on."""
    beat = folder.heartbeat() or {}
    attempts = folder.attempts()
    last = attempts[-1] if attempts else {}
    steps = run.config.steps
    step = int(number(beat.get("step")) or 0)  # one mangled file must not hide the state of all other runs

    def state(
        word: str, step: int = step, result: dict[str, Any] | None = None, sentence: str = str(last.get("sentence", ""))
    ) -> RunState:
        return RunState(run.name, word, step, steps, beat, result, len(attempts), sentence)

    try:
        result = folder.result()
    except files.DamagedFile as e:
        return state("damaged", sentence=str(e))
    if result is not None:
        if result.get("status") not in ("done", "diverged"):
            return state("damaged", sentence=f"{folder.result_path}: is damaged (no status)")
        ended = number(result.get("steps"))
        return state(result["status"], step=steps if ended is None else int(ended), result=result)
    if not attempts:
        return state("queued")
    if "ended" in last:
        stopped = last.get("exit_code") == 75
        return state("queued" if stopped else "failed")
    newest = max(number(beat.get("time")) or 0, number(last.get("began")) or 0)
    return state("running" if now - newest < STALE_SECONDS else "stale")
