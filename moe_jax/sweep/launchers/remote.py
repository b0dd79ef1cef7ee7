"""RemoteLauncher: the base class of launchers whose jobs run on other machines.

`launch` makes sure that a job is submitted once, also where two users submit the same sweep or one of them is killed:
it claims each batch in the submission records, submits it by the client's command, and confirms the claim.
"""

import abc
import argparse
import dataclasses
import shlex
import shutil
from collections.abc import Sequence
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.errors import UserError, WorkFailed
from moe_jax.sweep.jobs import Job
from moe_jax.sweep.launchers.clients import Command, call, failure_sentence
from moe_jax.sweep.launchers.launcher import Say
from moe_jax.sweep.launchers.slices import Slices
from moe_jax.sweep.run_state import RunState
from moe_jax.sweep.select_jobs import Selection
from moe_jax.sweep.submission_records import Submission, SubmissionRecords
from moe_jax.sweep.workdir import Workdir


class RemoteLauncher(abc.ABC):
    """Submits batches of jobs by commands of a client, such as xpk or gcloud.

    A launcher sets `address`, `client` and `how_to_get_it` and defines `command` and `already_exists`. The other
    methods have defaults: one job a batch, nothing to prepare, no batch is ever lost."""

    runs_here = False
    address: str  # its kind and where it submits, as records have it: xpk:my-project/us-east5-a/pods
    client: str  # the program that the commands start
    how_to_get_it: str
    slices: Slices | None = None

    def __init__(self, workdir: str, shared_filesystem: bool):
        self.workdir, self._shared_filesystem = workdir, shared_filesystem

    @abc.abstractmethod
    def command(self, batch: Sequence[Submission]) -> Command:
        """The command that submits a batch. Run a second time, it fails as `already_exists` detects, and changes
        nothing. Raises UserError where the batch cannot be submitted."""

    @abc.abstractmethod
    def already_exists(self, name: str, output: str) -> bool:
        """Whether the output of a command that failed says that a batch of this name exists."""

    def preparation(self) -> list[Command]:
        """Commands to run once, before the first batch is submitted."""
        return []

    def batches(self, submissions: Sequence[Submission]) -> list[list[Submission]]:
        """Groups the jobs into batches; each batch is submitted by one command."""
        return [[submission] for submission in submissions]

    def batch_name(self, batch: Sequence[Submission]) -> str:
        """The batch's name, unique in the cluster or project."""
        return batch[0].id

    def find_lost(self, batches: Sequence[str]) -> set[str]:
        return set()

    def delete_lost(self, batches: Sequence[str]) -> None:  # noqa: B027 (nothing to delete is a sound default)
        """Deletes what is left of lost batches."""

    def training_command(self, submission: Submission) -> Command:
        """What every host of a job runs."""
        return ["python", "-m", "moe_jax", "train", "--multihost", f"--workdir={self.workdir}", *submission.job.flags]

    def check_paths(self, store: str) -> None:
        if self._shared_filesystem:
            if not files.is_remote(store) and not store.startswith("/"):
                raise UserError(f"--config.data.store={store}: give its absolute path, as the jobs see it")
            return
        for flag, path in (("--workdir", self.workdir), ("--config.data.store", store)):
            if not files.is_remote(path):
                raise UserError(
                    f"{flag}={path}: is on this machine, and the jobs run elsewhere: put it on gs:// (the store by "
                    "gcloud storage cp --recursive), or give --shared_filesystem where the jobs see the same path"
                )

    def check_jobs(self, jobs: Sequence[Job]) -> None:
        packs = [job for job in jobs if len(job.runs) > 1 and not job.is_trunk]
        if packs and self.slices is not None and self.slices.hosts > 1:
            size = packs[0].runs[0].config.sweep.pack
            raise UserError(
                f"config.sweep.pack={size}: packed runs are trained by one process, and a job has {self.slices.hosts} "
                "hosts there; take a slice of one host, or --config.sweep.pack=1, which trains the same runs"
            )

    def check_client(self) -> None:
        if shutil.which(self.client) is None:
            raise UserError(f"{self.client}: is not installed here; {self.how_to_get_it}; --dry_run does not need it")

    def commands(self, submissions: Sequence[Submission]) -> list[Command]:
        return [*self.preparation(), *map(self.command, self.batches(submissions))]

    def launch(
        self, selection: Selection, workdir: Workdir, records: SubmissionRecords, say: Say
    ) -> list[RunState]:  # fmt: skip
        batches = self.batches(selection.submissions)
        self.delete_lost(sorted(selection.lost_batches))
        for batch in batches:
            self.command(batch)  # raises before anything is submitted
        for line in self.preparation():
            say(f"+ {shlex.join(line)}")
            code, output = call(line)
            if code != 0:
                raise WorkFailed(failure_sentence(line[0], code, output))
        done, total = 0, len(selection.submissions)
        try:
            for batch in batches:
                outcome = "another submitter has it"
                if _claim(batch, self.address, self.batch_name(batch), records):
                    try:
                        new = self._submit_claimed(batch, workdir, records)
                    except WorkFailed as e:
                        raise WorkFailed(f"{e}; {done} of {total} jobs are queued; start again") from e
                    outcome = "queued" if new else "exists already, so it counts as queued"
                done += len(batch)
                say(f"[{done}/{total}] {self.batch_name(batch)}: {outcome}")
        finally:
            records.summarise()
        return []

    def _submit_claimed(self, batch: Sequence[Submission], workdir: Workdir, records: SubmissionRecords) -> bool:
        """Sets aside the runs that a claimed batch trains again, submits it and confirms the claim. A failure puts them
        back and releases the claim. Returns False where the batch existed already."""
        aside: dict[str, epath.Path | None] = {}
        try:
            for run in (run for submission in batch for run in submission.reruns):
                aside[run] = workdir.set_run_aside(run)
            new = self.submit_batch(batch)
        except Exception:
            for run, path in aside.items():
                if path is not None:
                    workdir.put_back(path, run)
            for submission in batch:
                records.release(submission)
            raise
        for submission in batch:
            records.confirm(submission, self.address, self.batch_name(batch))
        return new

    def submit_batch(self, batch: Sequence[Submission]) -> bool:
        """Runs the batch's command; False where the batch existed already. Raises WorkFailed with the client's last
        words."""
        code, output = call(self.command(batch))
        if code == 0:
            return True
        name = self.batch_name(batch)
        if self.already_exists(name, output):
            return False
        raise WorkFailed(f"{name}: {failure_sentence(self.client, code, output)}")


def _claim(batch: Sequence[Submission], address: str, name: str, records: SubmissionRecords) -> bool:
    """Claims all jobs of a batch, or none. False where another submitter has the batch: two submitters of one sweep
    make the same batches, so the first job shows it. Raises WorkFailed where it has only some of its jobs."""
    claimed: list[Submission] = []
    for submission in batch:
        if records.claim(submission, address, name):
            claimed.append(submission)
            continue
        for other in claimed:
            records.release(other)
        if claimed:
            raise WorkFailed(
                f"{submission.job.name}: another submitter is submitting these jobs now; start again when it has ended"
            )
        return False
    return True


def add_shared_filesystem_flag(group: argparse._ArgumentGroup) -> None:
    """The flag that launchers pass to RemoteLauncher."""
    group.add_argument(
        "--shared_filesystem", action="store_true",
        help="workdir and store are paths that the jobs see too (Filestore, NFS), not gs://",
    )  # fmt: skip


def options_from_flags(kind: type, flags: argparse.Namespace, extra: Sequence[str]) -> Any:
    """An options dataclass, filled from the flags of the same names and from `extra`, the arguments after `--`."""
    given = vars(flags) | {"extra": tuple(extra)}
    return kind(**{field.name: given[field.name] for field in dataclasses.fields(kind)})
