"""What of a sweep was given to a launcher: W/submission/<id>.json, one a job, and their summary W/submission.json.

A record is created before its job is given to a launcher, and only one of several submitters can create it
(files.create says how), so no job is given twice. One whose submitter died in between may be taken over, under the same
id: whether the launcher had got it already, the launcher knows ("already exists" counts as queued).
"""

import contextlib
import dataclasses
import json
import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.errors import UserError
from moe_jax.jobs import Job, jobs
from moe_jax.manifest import PlannedRun
from moe_jax.tables import number
from moe_jax.workdir import Workdir

SUBMITTING, QUEUED = "submitting", "queued"
_CLAIM_SECONDS = 600  # a submitter that has not confirmed its claim for so long is dead
_MAX_RETRIES = 99  # an id has 40 characters
_READERS = 64


@dataclasses.dataclass(frozen=True)
class Record:
    """One job, given to a launcher once."""

    job: str
    id: str  # its name there: <sweep id>-<job>[-rN]
    retry: int  # N
    launcher: str  # its kind and where it submits: xpk:my-project/us-east5-a/pods
    batch: str  # id of what the launcher made for it and for others
    runs: tuple[str, ...]  # those that have a result when it is done
    state: str  # SUBMITTING until the launcher has it, then QUEUED
    time: float
    host: str
    pid: int
    token: str  # tells two submitters apart

    @property
    def is_abandoned(self) -> bool:
        """Whether its submitter died before the launcher answered."""
        if self.state != SUBMITTING:
            return False
        if self.host == socket.gethostname() and not _is_alive(self.pid):
            return True
        return time.time() - self.time > _CLAIM_SECONDS


@dataclasses.dataclass(frozen=True)
class Ticket:
    """A job that is to be given to a launcher."""

    job: Job
    id: str
    retry: int
    taken_over: Record | None = None  # whose submitter died
    reruns: tuple[str, ...] = ()  # runs of it that are set aside before


def ticket(sweep: str, job: Job, last: Record | None, launcher: str | None) -> Ticket:
    """The next one of a job whose newest record is `last`, for a launcher (as records have it), which alone can tell
    whether it has got what its own dead submitter claimed. Raises UserError where the job had too many."""
    if last is not None and last.is_abandoned and last.launcher == launcher:
        return Ticket(job, last.id, last.retry, last)
    retry = 0 if last is None else last.retry + 1
    if retry > _MAX_RETRIES:
        raise UserError(
            f"{job.name}: was submitted {retry} times; look at why, and train it with moe-jax train {job.flags[0]}"
        )
    return Ticket(job, f"{sweep}-{job.name}" + (f"-r{retry}" if retry else ""), retry)


class Submission:
    """The records of a workdir."""

    def __init__(self, workdir: Workdir):
        self._folder = workdir.path / "submission"
        self._summary = workdir.path / "submission.json"
        self._token = uuid.uuid4().hex

    def newest(self) -> dict[str, Record]:
        """The last record of each job. Raises DamagedFile."""
        if not self._folder.exists():
            return {}
        paths = [p for p in self._folder.iterdir() if p.name.endswith(".json") and not p.name.startswith(".")]
        with ThreadPoolExecutor(_READERS) as pool:
            records = sorted(pool.map(_read, paths), key=lambda r: r.retry)
        return {record.job: record for record in records}

    def claim(self, ticket: Ticket, launcher: str, batch: str) -> bool:
        """Takes the job for this submitter; False where another one has it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        record = self._record(ticket, launcher, batch, SUBMITTING)
        if ticket.taken_over is not None:
            files.write_json(self._path(ticket), record)
            return True
        return files.create(self._path(ticket), _encoded(record))

    def confirm(self, ticket: Ticket, launcher: str, batch: str) -> None:
        """The launcher has it."""
        files.write_json(self._path(ticket), self._record(ticket, launcher, batch, QUEUED))

    def release(self, ticket: Ticket) -> None:
        """The launcher refused it. What another submitter has taken over meanwhile stays."""
        with contextlib.suppress(FileNotFoundError):
            if _read(self._path(ticket)).token == self._token:
                self._path(ticket).unlink()

    def summarise(self) -> None:
        """Writes submission.json, for whoever wants to know in one read; it decides nothing."""
        records = [dataclasses.asdict(r) for r in self.newest().values()]
        files.write_json(self._summary, {"jobs": sorted(records, key=lambda r: r["time"])})

    def _path(self, ticket: Ticket) -> epath.Path:
        return self._folder / f"{ticket.id}.json"

    def _record(self, ticket: Ticket, launcher: str, batch: str, state: str) -> dict[str, Any]:
        record = Record(
            ticket.job.name, ticket.id, ticket.retry, launcher, batch, tuple(r.name for r in ticket.job.runs), state,
            time.time(), socket.gethostname(), os.getpid(), self._token,
        )  # fmt: skip
        return dataclasses.asdict(record)


def check_submitted(workdir: Workdir, old: Sequence[PlannedRun], new: Sequence[PlannedRun]) -> None:
    """Raises UserError where a job that a launcher has would not be the one that trains its runs any more: a pack or a
    trunk whose runs were given another mesh, or packed otherwise."""
    before, after = ({job.name: {run.name for run in job.runs} for job in jobs(r, apart=False)} for r in (old, new))
    gone = {job: runs - {job} - after.get(job, set()) for job, runs in before.items()}  # a run alone stays its own job
    if not any(gone.values()):
        return
    for record in Submission(workdir).newest().values():
        for name in record.runs:
            if name in gone.get(record.job, ()) and not workdir.run_dir(name).result_path.exists():
                raise UserError(
                    f"{name}: {record.job}, submitted as {record.id}, is to train it, and would not with this config "
                    "(config.mesh, config.sweep.pack and what else its runs have in common); wait for that job, or "
                    f"delete it where it was submitted, and then {workdir.path}/submission/{record.id}.json"
                )


def queued_as(workdir: Workdir) -> dict[str, str]:
    """run, trunk -> id of the job that was submitted for it last, by submission.json; nothing where that cannot be
    read."""
    try:
        jobs = files.read_json(workdir.path / "submission.json")["jobs"]
        return {name: str(job["id"]) for job in jobs for name in (*job["runs"], str(job["job"]))}
    except (FileNotFoundError, files.DamagedFile, KeyError, TypeError):
        return {}


_KINDS: tuple[tuple[tuple[str, ...], Callable[[Any], bool]], ...] = (
    (("job", "id", "launcher", "batch", "state", "host", "token"), lambda value: isinstance(value, str)),
    (("retry", "pid"), lambda value: type(value) is int),
    (("time",), lambda value: number(value) is not None),
    (("runs",), lambda value: isinstance(value, list) and all(isinstance(run, str) for run in value)),
)


def _read(path: epath.Path) -> Record:
    values = files.read_json(path)
    try:
        for names, is_kind in _KINDS:
            for name in names:
                if not is_kind(values[name]):
                    raise TypeError(f"{name} is {values[name]!r:.40}")
        record = Record(**values | {"runs": tuple(values["runs"])})
        if path.name != f"{record.id}.json":
            raise ValueError(f"its id is {record.id}")
        if record.state not in (SUBMITTING, QUEUED) or record.retry + record.time + record.pid < 0:
            raise ValueError("its state, retry, time or pid is none")
    except (KeyError, TypeError, ValueError) as e:
        raise files.DamagedFile(f"{path}: is damaged ({type(e).__name__}: {e}); look it up and remove it") from e
    return record


def _encoded(record: dict[str, Any]) -> bytes:
    return (json.dumps(record, indent=1, allow_nan=False) + "\n").encode()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
