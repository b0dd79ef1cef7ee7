"""`--launcher=local`: jobs on this machine, several at a time, restarted as a cluster would restart them."""

import argparse
from collections.abc import Sequence

from moe_jax.errors import UserError
from moe_jax.progress import Display
from moe_jax.sweep.jobs import Job
from moe_jax.sweep.launchers import local_restarts
from moe_jax.sweep.launchers.clients import Command
from moe_jax.sweep.launchers.launcher import Say
from moe_jax.sweep.run_state import RunState
from moe_jax.sweep.select_jobs import Selection
from moe_jax.sweep.submission_records import Submission, SubmissionRecords
from moe_jax.sweep.workdir import Workdir


def add_flags(group: argparse._ArgumentGroup) -> None:
    """Adds the flags of --launcher=local."""
    group.add_argument("--jobs", type=int, default=1, metavar="N", help="jobs at a time (default 1)")


def make(flags: argparse.Namespace, workdir: str, extra: Sequence[str]) -> "LocalLauncher":
    """The launcher that these flags ask for. Raises UserError on flags that do not fit."""
    if extra:
        raise UserError(f"{extra[0]}: --launcher=local passes nothing on after --")
    if flags.jobs < 1:
        raise UserError(f"--jobs={flags.jobs}: must be at least 1")
    return LocalLauncher(workdir, flags.jobs, flags.max_restarts)


class LocalLauncher:
    """A launcher.Launcher that trains the jobs itself and returns when they have ended."""

    runs_here = True
    address = None
    slices = None

    def __init__(self, workdir: str, jobs: int, max_restarts: int):
        self._workdir, self._at_once, self._max_restarts = workdir, jobs, max_restarts

    def check_paths(self, store: str) -> None:
        pass

    def check_jobs(self, jobs: Sequence[Job]) -> None:
        pass

    def check_client(self) -> None:
        pass

    def find_lost(self, batches: Sequence[str]) -> set[str]:
        return set()

    def commands(self, submissions: Sequence[Submission]) -> list[Command]:
        return [["moe-jax", "train", f"--workdir={self._workdir}", *s.job.flags] for s in submissions]

    def launch(
        self, selection: Selection, workdir: Workdir, records: SubmissionRecords, say: Say
    ) -> list[RunState]:  # fmt: skip
        for submission in selection.submissions:
            for name in submission.reruns:
                workdir.set_run_aside(name)
        runs = [run for submission in selection.submissions for run in submission.job.runs]
        with Display() as display:
            return local_restarts.train_with_restarts(workdir, runs, self._at_once, self._max_restarts, display)
