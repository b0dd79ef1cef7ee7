"""`--launcher=xpk`: one workload a job on a GKE cluster, where Kueue queues them. Statements about xpk hold for 1.16.

xpk asks before it overwrites a workload of the same name. The answer is no, so --quiet (always yes) is refused. By
default xpk never restarts a workload, and then only after the codes 42 and 127–255. SIGTERM reaches Python only where
Python is the last part of the command, hence `exec`; it comes up to 5 s late.
"""

import argparse
import dataclasses
from collections.abc import Sequence

from moe_jax.errors import UserError
from moe_jax.provenance import source_tree
from moe_jax.sweep.launchers import restarts, slices
from moe_jax.sweep.launchers.clients import Command
from moe_jax.sweep.launchers.quoting import container_command
from moe_jax.sweep.launchers.remote import RemoteLauncher, add_shared_filesystem_flag, options_from_flags
from moe_jax.sweep.submission_records import Submission

# Flags of xpk that submit sets itself.
_OURS = (
    "--workload", "--command", "--cluster", "--project", "--zone", "--tpu-type", "--device-type", "--num-slices",
    "--docker-image", "--base-docker-image", "--priority", "--max-restarts", "--restart-on-exit-codes",
    "--termination-grace-period-seconds", "-tgps", "--dry-run",
)  # fmt: skip


def add_flags(group: argparse._ArgumentGroup) -> None:
    """Adds the flags of --launcher=xpk."""
    group.add_argument("--project", required=True, help="Google Cloud project")
    group.add_argument("--zone", required=True, help="for example us-east5-a")
    group.add_argument("--cluster", required=True, help="GKE cluster with xpk's queues")
    group.add_argument("--tpu_type", required=True, help="xpk's name of a slice, for example v5litepod-16")
    group.add_argument("--num_slices", type=int, default=1, metavar="N", help="slices of a job (default 1)")
    group.add_argument("--docker_image", help="an image with moe_jax in it (tpu_scripts/build_image.sh)")
    group.add_argument("--base_docker_image", help="an image to which xpk adds this directory")
    priorities = ("very-low", "low", "medium", "high", "very-high")
    group.add_argument("--priority", choices=priorities, help="priority of the jobs")
    group.add_argument(
        "--grace_seconds", type=int, default=300, metavar="S", help="time from SIGTERM to SIGKILL (default 300)"
    )
    add_shared_filesystem_flag(group)


def make(flags: argparse.Namespace, workdir: str, extra: Sequence[str]) -> "Xpk":
    """The launcher that these flags ask for. Raises UserError on flags that do not fit."""
    return Xpk(options_from_flags(Options, flags, extra), workdir, flags.shared_filesystem)


@dataclasses.dataclass(frozen=True)
class Options:
    """The values of its flags. Raises UserError where xpk could not take them."""

    cluster: str
    project: str
    zone: str
    tpu_type: str  # xpk's name: v5litepod-16
    num_slices: int
    docker_image: str | None  # either this or the next
    base_docker_image: str | None  # to which xpk adds the current directory
    priority: str | None
    max_restarts: int
    grace_seconds: int  # between SIGTERM and SIGKILL: time to save a checkpoint
    extra: tuple[str, ...]  # passed on unchanged

    def __post_init__(self):
        if (self.docker_image is None) == (self.base_docker_image is None):
            raise UserError("--docker_image: give an image with moe_jax in it (tpu_scripts/build_image.sh makes one), "
                            "or --base_docker_image, to which xpk adds this directory; not both")  # fmt: skip
        if self.num_slices < 1:
            raise UserError(f"--num_slices={self.num_slices}: must be at least 1")
        if self.grace_seconds < 1:
            raise UserError(f"--grace_seconds={self.grace_seconds}: must be at least 1")
        for flag in self.extra:
            if any(_abbreviates(flag, ours) for ours in _OURS):
                raise UserError(f"{flag}: is set by submit; its own flags stand in --launcher=xpk --help")
            if _abbreviates(flag, "--quiet"):
                raise UserError(f"{flag}: makes xpk delete a queued job of the same name; leave it out")


class Xpk(RemoteLauncher):
    """One workload a job."""

    how_to_get_it = "make xpk installs it in .venv-xpk of the checkout"

    def __init__(self, options: Options, workdir: str, shared_filesystem: bool):
        super().__init__(workdir, shared_filesystem)
        self._options = options
        self.slices = slices.on_gke(options.tpu_type, options.num_slices)
        self.client = client_path()
        self.address = f"xpk:{options.project}/{options.zone}/{options.cluster}"

    def command(self, batch: Sequence[Submission]) -> Command:
        o = self._options
        codes = ",".join(map(str, restarts.CODES))
        inside = ["exec", "env", "JAX_PLATFORMS=tpu,cpu", *self.training_command(batch[0])]  # never on the CPU alone
        command = [
            self.client, "workload", "create", f"--workload={self.batch_name(batch)}", f"--cluster={o.cluster}",
            f"--project={o.project}", f"--zone={o.zone}", f"--tpu-type={o.tpu_type}", f"--num-slices={o.num_slices}",
        ]  # fmt: skip
        if o.docker_image is not None:
            command.append(f"--docker-image={o.docker_image}")
        else:
            command.append(f"--base-docker-image={o.base_docker_image}")
        if o.priority is not None:
            command.append(f"--priority={o.priority}")
        return [
            *command, f"--max-restarts={o.max_restarts}", f"--restart-on-exit-codes={codes}",
            f"--termination-grace-period-seconds={o.grace_seconds}", f"--command={container_command(inside)}", *o.extra,
        ]  # fmt: skip

    def already_exists(self, name: str, output: str) -> bool:
        return any(f"{name} already exists" in line for line in output.splitlines())

    # No workload is ever lost: xpk restarts them itself. One that was deleted is submitted again by --retry.


def _abbreviates(flag: str, whole: str) -> bool:
    """Whether xpk would take `flag` (or --flag=value) for `whole`."""
    name = flag.partition("=")[0]
    return len(name) > 2 and name.startswith("-") and whole.startswith(name)


def client_path() -> str:
    """xpk in its own environment, which the Makefile makes, else on the PATH."""
    tree = source_tree()
    ours = None if tree is None else tree / ".venv-xpk" / "bin" / "xpk"
    return "xpk" if ours is None or not ours.exists() else str(ours)
