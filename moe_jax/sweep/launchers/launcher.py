"""What `submit` needs from any launcher."""

from collections.abc import Callable, Sequence
from typing import Protocol

from moe_jax.sweep.jobs import Job
from moe_jax.sweep.launchers.clients import Command
from moe_jax.sweep.launchers.slices import Slices
from moe_jax.sweep.run_state import RunState
from moe_jax.sweep.select_jobs import Selection
from moe_jax.sweep.submission_records import Submission, SubmissionRecords
from moe_jax.sweep.workdir import Workdir

Say = Callable[[str], None]


class Launcher(Protocol):
    """Starts jobs, here or elsewhere. RemoteLauncher implements it for jobs that run elsewhere."""

    runs_here: bool  # on this machine, while `submit` waits; such jobs get no records
    address: str | None  # its kind and where it submits, as records have it; None where it keeps none
    slices: Slices | None  # the TPU slices of one job; None where they are not known

    def check_paths(self, store: str) -> None:
        """Raises UserError where the jobs could not see the workdir or the token store."""

    def check_jobs(self, jobs: Sequence[Job]) -> None:
        """Raises UserError where a job cannot be trained there."""

    def check_client(self) -> None:
        """Raises UserError where the program that submits jobs is not installed."""

    def find_lost(self, batches: Sequence[str]) -> set[str]:
        """Those of its batches that will not train their jobs any more. Changes nothing."""

    def commands(self, submissions: Sequence[Submission]) -> list[Command]:
        """The commands that would submit these jobs, for --dry_run."""

    def launch(
        self, selection: Selection, workdir: Workdir, records: SubmissionRecords, say: Say
    ) -> list[RunState]:  # fmt: skip
        """Starts or submits the selected jobs. Returns the states of the runs that were trained meanwhile, none where
        jobs run elsewhere. Raises WorkFailed where a job cannot be submitted."""
