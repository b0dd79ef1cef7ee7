"""Giving jobs to a launcher, each once."""

import shlex
from collections.abc import Callable, Sequence

from etils import epath

from moe_jax.errors import UserError, WorkFailed
from moe_jax.jobs import Job
from moe_jax.launchers import remote
from moe_jax.launchers.remote import Launcher
from moe_jax.launchers.slices import Slices
from moe_jax.submission import Submission, Ticket
from moe_jax.workdir import Workdir

Say = Callable[[str], None]


def refuse_packs(jobs: Sequence[Job], slices: Slices | None) -> None:
    """Raises UserError where several hosts would train what only one process can."""
    packs = [job for job in jobs if len(job.runs) > 1 and not job.is_trunk]
    if packs and slices is not None and slices.hosts > 1:
        size = packs[0].runs[0].config.sweep.pack
        raise UserError(
            f"config.sweep.pack={size}: packed runs are trained by one process, and a job has {slices.hosts} hosts "
            "there; take a slice of one host, or --config.sweep.pack=1, which makes the same runs"
        )


def submit(
    launcher: Launcher, batches: Sequence[Sequence[Ticket]], workdir: Workdir, submission: Submission,
    say: Say,
) -> None:  # fmt: skip
    """Claims each batch, sets aside what it trains again, gives it to the launcher and notes that it has it; the first
    failure ends it (WorkFailed)."""
    for batch in batches:
        launcher.command(batch)  # refuses what cannot be submitted before anything is
    for line in launcher.preparation():
        say(f"+ {shlex.join(line)}")
        code, output = remote.call(line)
        if code != 0:
            raise WorkFailed(remote.failure(line[0], code, output))
    done, total = 0, sum(map(len, batches))
    try:
        for batch in batches:
            done += len(batch)
            name = launcher.name(batch)
            if not _claim(batch, launcher.address, name, submission):
                say(f"[{done}/{total}] {name}: another submitter has it")
                continue
            aside: dict[str, epath.Path | None] = {}
            try:
                for run in (run for one in batch for run in one.reruns):
                    aside[run] = workdir.set_run_aside(run)
                new = remote.launch(launcher, batch)
            except Exception as e:
                for run, path in aside.items():
                    if path is not None:
                        workdir.put_back(path, run)
                for one in batch:
                    submission.release(one)
                if not isinstance(e, WorkFailed):
                    raise
                raise WorkFailed(f"{e}; {done - len(batch)} of {total} jobs are queued; start again") from e
            for one in batch:
                submission.confirm(one, launcher.address, name)
            say(f"[{done}/{total}] {name}: {'queued' if new else 'is there already, so it counts as queued'}")
    finally:
        submission.summarise()


def _claim(batch: Sequence[Ticket], launcher: str, name: str, submission: Submission) -> bool:
    """Takes a batch, or nothing of it where another submitter has it. Two that submit the same have the same batches,
    so that its first job tells whose it is."""
    claimed: list[Ticket] = []
    for one in batch:
        if submission.claim(one, launcher, name):
            claimed.append(one)
            continue
        for other in claimed:
            submission.release(other)
        if claimed:
            raise WorkFailed(f"{one.job.name}: another submitter takes these jobs now; start again when it is through")
        return False
    return True
