"""xpk: one workload a job on a GKE cluster, where Kueue queues them. Facts are of xpk 1.16.

xpk asks before it overwrites a workload of the same name; it is answered with no, so --quiet (always yes) is refused.
It restarts on 42 and 127–255 only, and never, unless told otherwise. SIGTERM reaches Python only where it is the last
part of the command, hence `exec`; up to 5 s late.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from moe_jax.errors import UserError
from moe_jax.launchers import restarts, slices
from moe_jax.launchers.quoting import container_command
from moe_jax.launchers.remote import Command, Place, training
from moe_jax.submission import Ticket

_OURS = (
    "--workload", "--command", "--cluster", "--project", "--zone", "--tpu-type", "--device-type", "--num-slices",
    "--docker-image", "--base-docker-image", "--priority", "--max-restarts", "--restart-on-exit-codes",
    "--termination-grace-period-seconds", "-tgps", "--dry-run",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of submit."""

    cluster: str
    project: str
    zone: str
    tpu_type: str  # xpk's name: v5litepod-16
    num_slices: int
    docker_image: str | None  # one of the two
    base_docker_image: str | None  # to which xpk adds the current directory
    priority: str | None
    max_restarts: int
    grace_seconds: int  # between SIGTERM and SIGKILL: time to save a checkpoint
    extra: tuple[str, ...]  # passed on as they are

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
                raise UserError(f"{flag}: is for submit to set, not for xpk; moe-jax submit --help lists its flags")
            if _abbreviates(flag, "--quiet"):
                raise UserError(f"{flag}: makes xpk delete a job of the same name that is queued already; leave it out")


class Xpk:
    """remote.Launcher."""

    how_to_get_it = "make xpk installs it in .venv-xpk of the checkout"

    def __init__(self, options: Options, place: Place):
        self._options, self._place = options, place
        self.slices = slices.on_gke(options.tpu_type, options.num_slices)
        self.client = client_path()
        self.address = f"xpk:{options.project}/{options.zone}/{options.cluster}"

    def preparation(self) -> list[Command]:
        return []

    def deal(self, tickets: Sequence[Ticket]) -> list[list[Ticket]]:
        return [[ticket] for ticket in tickets]

    def name(self, batch: Sequence[Ticket]) -> str:
        return batch[0].id

    def command(self, batch: Sequence[Ticket]) -> Command:
        o = self._options
        codes = ",".join(map(str, restarts.CODES))
        inside = ["exec", "env", "JAX_PLATFORMS=tpu,cpu", *training(batch[0], self._place)]  # never on the CPU alone
        command = [
            self.client, "workload", "create", f"--workload={self.name(batch)}", f"--cluster={o.cluster}",
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

    def already_there(self, name: str, output: str) -> bool:
        return any(f"{name} already exists" in line for line in output.splitlines())

    def lost(self, names: Sequence[str]) -> set[str]:
        return set()  # xpk's own restarts are all there is; a workload that is gone is submitted again by --retry

    def delete(self, names: Sequence[str]) -> None:
        pass


def _abbreviates(flag: str, whole: str) -> bool:
    """Whether xpk would take `flag` (or --flag=value) for `whole`."""
    name = flag.partition("=")[0]
    return len(name) > 2 and name.startswith("-") and whole.startswith(name)


def client_path() -> str:
    """xpk in the environment of its own that the Makefile makes, else on the PATH."""
    ours = Path(__file__).resolve().parents[2] / ".venv-xpk" / "bin" / "xpk"
    return str(ours) if ours.exists() else "xpk"
