"""Records of the jobs that were submitted: W/submission/<id>.json, one a job, and their summary W/submission.json.

A record is created before its job is submitted, and only one of several submitters can create it (files.create), so no
job is submitted twice. If the submitter dies in between, another may take the job over under the same id: if the
launcher had the job already, it says that the job exists, which counts as queued.
"""

import contextlib
import dataclasses
import json
import os
import socket
import time
import uuid
from collections.abc import Sequence
from typing import Any

from etils import epath

from moe_jax import files, records
from moe_jax.errors import UserError
from moe_jax.sweep.jobs import Job, jobs_of
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.read_many import read_many
from moe_jax.sweep.workdir import Workdir

SUBMITTING, QUEUED = "submitting", "queued"
_CLAIM_SECONDS = 600  # a submitter that has not confirmed its claim for so long is dead
_MAX_RETRIES = 99  # an id has 40 characters


@dataclasses.dataclass(frozen=True)
class SubmissionRecord:
    """The record of one submission of one job."""

    job: str
    id: str  # its name there: <sweep id>-<job>[-rN]
    retry: int  # N
    launcher: str  # its address: xpk:my-project/us-east5-a/pods
    batch: str  # name of the workload or slice that the job is in, perhaps with others
    runs: tuple[str, ...]  # that the job trains
    state: str  # SUBMITTING until the launcher has it, then QUEUED
    time: float
    host: str
    pid: int
    token: str  # of the submitter, unique

    @property
    def is_abandoned(self) -> bool:
        """Whether its submitter died before it confirmed that the launcher has the job."""
        if self.state != SUBMITTING:
            return False
        if self.host == socket.gethostname() and not _is_alive(self.pid):
            return True
        return time.time() - self.time > _CLAIM_SECONDS


@dataclasses.dataclass(frozen=True)
class Submission:
    """A job that is to be submitted, under an id of its own."""

    job: Job
    id: str  # its name there
    retry: int
    taken_over: SubmissionRecord | None = None  # the record of a dead submitter that this submission replaces
    reruns: tuple[str, ...] = ()  # runs of the job that are set aside before


def next_submission(sweep: str, job: Job, last: SubmissionRecord | None, launcher: str | None) -> Submission:
    """The next submission of a job whose newest record is `last`, to the launcher with this address.

    A job that a dead submitter had claimed keeps its id if the launcher is the same, since only that launcher can tell
    whether it has the job. Raises UserError where the job was submitted too often."""
    if last is not None and last.is_abandoned and last.launcher == launcher:
        return Submission(job, last.id, last.retry, last)
    retry = 0 if last is None else last.retry + 1
    if retry > _MAX_RETRIES:
        raise UserError(
            f"{job.name}: was submitted {retry} times; find out why, or train it with moe-jax train {job.flags[0]}"
        )
    return Submission(job, f"{sweep}-{job.name}" + (f"-r{retry}" if retry else ""), retry)


class SubmissionRecords:
    """The submission records of a workdir."""

    def __init__(self, workdir: Workdir):
        self._folder = workdir.path / "submission"
        self._summary = workdir.path / "submission.json"
        self._token = uuid.uuid4().hex

    def newest(self) -> dict[str, SubmissionRecord]:
        """The newest record of each job. Raises DamagedFile."""
        if not self._folder.exists():
            return {}
        paths = [p for p in self._folder.iterdir() if p.name.endswith(".json") and not p.name.startswith(".")]
        found = sorted(read_many(_read, paths), key=lambda record: record.retry)
        return {record.job: record for record in found}

    def claim(self, submission: Submission, launcher: str, batch: str) -> bool:
        """Claims the job for this submitter; False where another one has claimed it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        record = self._record(submission, launcher, batch, SUBMITTING)
        if submission.taken_over is not None:
            files.write_sealed(self._path(submission), record)
            return True
        return files.create(self._path(submission), _encoded(record))

    def confirm(self, submission: Submission, launcher: str, batch: str) -> None:
        """Notes that the launcher has the job."""
        files.write_sealed(self._path(submission), self._record(submission, launcher, batch, QUEUED))

    def release(self, submission: Submission) -> None:
        """Gives up the claim. A record that another submitter has taken over meanwhile stays."""
        with contextlib.suppress(FileNotFoundError):
            if _read(self._path(submission)).token == self._token:
                self._path(submission).unlink()

    def summarise(self) -> None:
        """Writes submission.json, a summary that one read shows. Nothing is decided by it."""
        newest = [dataclasses.asdict(record) for record in self.newest().values()]
        files.write_sealed(self._summary, {"jobs": sorted(newest, key=lambda fields: fields["time"])})

    def _path(self, submission: Submission) -> epath.Path:
        return self._folder / f"{submission.id}.json"

    def _record(self, submission: Submission, launcher: str, batch: str, state: str) -> dict[str, Any]:
        job, runs = submission.job.name, tuple(run.name for run in submission.job.runs)
        record = SubmissionRecord(
            job, submission.id, submission.retry, launcher, batch, runs, state, time.time(), socket.gethostname(),
            os.getpid(), self._token,
        )  # fmt: skip
        return dataclasses.asdict(record)


def check_submitted(workdir: Workdir, old: Sequence[PlannedRun], new: Sequence[PlannedRun]) -> None:
    """Raises UserError where a submitted job would no longer train the runs that it was submitted for, as a pack does
    whose runs get another mesh, or are packed otherwise."""
    before, after = ({job.name: {run.name for run in job.runs} for job in jobs_of(r, apart=False)} for r in (old, new))
    gone = {job: runs - {job} - after.get(job, set()) for job, runs in before.items()}  # a single run remains a job
    if not any(gone.values()):
        return
    for record in SubmissionRecords(workdir).newest().values():
        for name in record.runs:
            if name in gone.get(record.job, ()) and not workdir.run_dir(name).result_path.exists():
                raise UserError(
                    f"{name}: job {record.job}, submitted as {record.id}, is to train it, and would not with this "
                    "config (config.mesh, config.sweep.pack, or another field that its runs must share); wait for that "
                    f"job, or delete it where it was submitted, and then {workdir.path}/submission/{record.id}.json"
                )


def queued_as(workdir: Workdir) -> dict[str, str]:
    """run or trunk -> id of the job that was last submitted for it, from submission.json. Raises DamagedFile."""
    path = workdir.path / "submission.json"
    try:
        jobs = files.read_sealed(path)["jobs"]
        return {name: str(job["id"]) for job in jobs for name in (*job["runs"], str(job["job"]))}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (KeyError, TypeError) as e:
        raise files.DamagedFile(
            f"{path}: is damaged ({type(e).__name__}: {e}); the next submission writes it anew"
        ) from e


def _read(path: epath.Path) -> SubmissionRecord:
    values = files.read_sealed(path)
    try:
        record = records.read(SubmissionRecord, values)
        if path.name != f"{record.id}.json":
            raise ValueError(f"its id is {record.id}")
        if record.state not in (SUBMITTING, QUEUED):
            raise ValueError(f"its state is {record.state!r:.40}")
    except (UserError, ValueError) as e:
        raise files.DamagedFile(f"{path}: is damaged ({e}); look at it and remove it") from e
    return record


def _encoded(record: dict[str, Any]) -> bytes:
    return (json.dumps(files.sealed(record), indent=1, allow_nan=False) + "\n").encode()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    except OverflowError:  # no process has such a number
        return False
    return True
