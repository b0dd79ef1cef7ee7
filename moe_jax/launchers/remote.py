"""Launchers whose jobs run elsewhere: what `submit` asks of them, and how their clients are called."""

import dataclasses
import shutil
import subprocess
from collections.abc import Sequence
from typing import Protocol

from moe_jax.errors import UserError, WorkFailed
from moe_jax.launchers.slices import Slices
from moe_jax.submission import Ticket

Command = list[str]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the files of a sweep are, as its jobs see them."""

    workdir: str
    sweep: str  # at most 7 characters


class Launcher(Protocol):
    """Makes commands, pure; `submit` prints them or runs them."""

    address: str  # its kind and where it submits, as records have it
    client: str  # the program that the commands need
    how_to_get_it: str
    slices: Slices | None  # of one job; None where that cannot be told

    def preparation(self) -> list[Command]:
        """What has to be done once before the first batch."""

    def deal(self, tickets: Sequence[Ticket]) -> list[list[Ticket]]:
        """The tickets in batches: what one command submits."""

    def name(self, batch: Sequence[Ticket]) -> str:
        """The batch's, unique in the project or cluster."""

    def command(self, batch: Sequence[Ticket]) -> Command:
        """Submits the batch. Run again, it ends as `already_there` says, and changes nothing."""

    def already_there(self, name: str, output: str) -> bool:
        """Whether the output of a command that failed says that there is a batch of this name."""

    def lost(self, names: Sequence[str]) -> set[str]:
        """Those of the batches that will do nothing any more, by asking the client. Changes nothing."""

    def delete(self, names: Sequence[str]) -> None:
        """Removes what is left of lost batches."""


def training(ticket: Ticket, place: Place) -> Command:
    """What every host of the job runs."""
    return ["python", "-m", "moe_jax.train", "--multihost", f"--workdir={place.workdir}", *ticket.job.flags]


def need(launcher: Launcher) -> None:
    """Raises UserError where the client is not installed."""
    if shutil.which(launcher.client) is None:
        raise UserError(f"{launcher.client}: is not installed here; {launcher.how_to_get_it}; --dry_run needs none")


def call(command: Command) -> tuple[int, str]:
    """(exit code, all it printed). What it asks is answered with no."""
    done = subprocess.run(
        command, input="n\n" * 8, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    return done.returncode, done.stdout


def launch(launcher: Launcher, batch: Sequence[Ticket]) -> bool:
    """Submits a batch; False where it was there already. Raises WorkFailed with the client's last words."""
    code, output = call(launcher.command(batch))
    if code == 0:
        return True
    name = launcher.name(batch)
    if launcher.already_there(name, output):
        return False
    raise WorkFailed(f"{name}: {failure(launcher.client, code, output)}")


def failure(client: str, code: int, output: str) -> str:
    """What a client said last, in one sentence."""
    said = [line.strip() for line in output.splitlines() if line.strip()]
    return f"{client} failed with code {code}: {' / '.join(said[-3:])[-600:] or 'it said nothing'}"
