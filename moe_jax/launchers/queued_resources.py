"""Queued resources: TPU slices by gcloud, for those without GKE.

The jobs are dealt among --queues slices, and each works through its list: all its hosts start the same jobs in the
same order (tpu_scripts/work_queue.sh), and a job that is done is passed over. So no claims are needed, and a host that
comes back after a maintenance starts its list again. The rule for the capacity: a slice deletes itself when its list
has ended, whether its jobs are done, diverged, refused or out of restarts, and when its set-up fails; whoever submitted
need not be there. A slice whose capacity was taken away (SUSPENDED) costs nothing and does nothing:
`submit --retry_failed` deletes it and gives what is left of its list to a new one.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from moe_jax.errors import UserError, WorkFailed
from moe_jax.launchers import slices
from moe_jax.launchers.quoting import gcloud_dict
from moe_jax.launchers.remote import Command, Place, call, failure
from moe_jax.provenance import git_commit
from moe_jax.submission import Ticket

_SCRIPTS = Path(__file__).resolve().parents[2] / "tpu_scripts"
_RESOURCES = ["gcloud", "compute", "tpus", "queued-resources"]
_DEAD = ("SUSPENDING", "SUSPENDED", "FAILED", "DELETING")
_MOST_METADATA = 200_000  # of the 256 KiB that a value may have
_OURS = (
    "--node-id", "--node-count", "--node-prefix", "--project", "--zone", "--accelerator-type", "--runtime-version",
    "--spot", "--metadata", "--metadata-from-file", "--async",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Options:
    """The flags of submit."""

    project: str
    zone: str
    accelerator_type: str  # v5litepod-16
    runtime_version: str  # v2-alpha-tpuv5-lite
    spot: bool
    queues: int  # slices at most
    max_restarts: int  # of each job
    extra: tuple[str, ...]  # passed on as they are

    def __post_init__(self):
        if self.queues < 1:
            raise UserError(f"--queues={self.queues}: must be at least 1")
        for flag in self.extra:
            if flag.partition("=")[0] in _OURS:
                raise UserError(f"{flag}: is for submit to set, not for gcloud; moe-jax submit --help lists its flags")


class QueuedResources:
    """remote.Launcher."""

    client = "gcloud"
    how_to_get_it = "https://cloud.google.com/sdk/docs/install says how"

    def __init__(self, options: Options, place: Place):
        self._options, self._place = options, place
        self.slices = slices.of_tpu_vm(options.accelerator_type)
        self.address = f"queued-resources:{options.project}/{options.zone}"
        commit = git_commit()
        if commit is None or not (_SCRIPTS / "startup.sh").exists():
            raise UserError(
                f"{_SCRIPTS.parent}: is no git checkout of moe_jax, so its code cannot be sent to the hosts; "
                "submit from a clone"
            )
        self._commit = commit.rstrip("+")  # what is not committed is not sent
        self._code = f"{place.workdir.rstrip('/')}/code/{self._commit[:12]}.tar.gz"

    def preparation(self) -> list[Command]:
        return [[str(_SCRIPTS / "upload_code.sh"), self._commit, self._code]]

    def deal(self, tickets: Sequence[Ticket]) -> list[list[Ticket]]:
        """The longest job first, each to the slice that has least to do. What a dead submitter took keeps its batch."""
        taken: dict[str, list[Ticket]] = {}
        for ticket in tickets:
            if ticket.taken_over is not None:
                taken.setdefault(ticket.taken_over.batch, []).append(ticket)
        fresh = [t for t in tickets if t.taken_over is None]
        queues: list[list[Ticket]] = [[] for _ in range(min(self._options.queues, len(fresh)))]
        load = [0.0] * len(queues)
        for ticket in sorted(fresh, key=lambda t: -t.job.train_flops):
            i = load.index(min(load))
            queues[i].append(ticket)
            load[i] += ticket.job.train_flops
        return [*taken.values(), *queues]

    def name(self, batch: Sequence[Ticket]) -> str:
        first = batch[0]
        return first.id if first.taken_over is None else first.taken_over.batch

    def command(self, batch: Sequence[Ticket]) -> Command:
        o, name = self._options, self.name(batch)
        jobs = ";".join(" ".join(ticket.job.flags) for ticket in batch)
        if len(jobs) > _MOST_METADATA:
            raise UserError(f"--queues={o.queues}: {len(batch)} jobs are too many for one slice's metadata; take more")
        metadata = {
            "moe-jax-workdir": self._place.workdir, "moe-jax-jobs": jobs, "moe-jax-code": self._code,
            "moe-jax-commit": self._commit, "moe-jax-restarts": str(o.max_restarts), "moe-jax-queue": name,
            "moe-jax-zone": o.zone, "moe-jax-project": o.project,
        }  # fmt: skip
        return [
            *_RESOURCES, "create", name, f"--node-id={name}", f"--project={o.project}", f"--zone={o.zone}",
            f"--accelerator-type={o.accelerator_type}", f"--runtime-version={o.runtime_version}",
            *(["--spot"] if o.spot else []), "--scopes=cloud-platform",
            f"--metadata-from-file={gcloud_dict({'startup-script': str(_SCRIPTS / 'startup.sh')})}",
            f"--metadata={gcloud_dict(metadata)}", "--async", *o.extra,
        ]  # fmt: skip

    def already_there(self, name: str, output: str) -> bool:
        return "ALREADY_EXISTS" in output or "already exists" in output

    def lost(self, names: Sequence[str]) -> set[str]:
        """Those that are dead, and those that are not there."""
        return {name for name in names if self._state(name) in (None, *_DEAD)}

    def delete(self, names: Sequence[str]) -> None:
        for name in names:
            if self._state(name) in _DEAD:
                code, output = call([*_RESOURCES, "delete", *self._where(name), "--force", "--quiet"])
                if code != 0:
                    raise WorkFailed(f"{name}: {failure(self.client, code, output)}")

    def _state(self, name: str) -> str | None:
        """As gcloud says it; None where there is none of this name."""
        code, output = call([*_RESOURCES, "describe", *self._where(name), "--format=value(state.state)"])
        if code == 0:
            return (output.split() or [""])[-1]
        if "NOT_FOUND" in output or "not found" in output.lower():
            return None
        raise WorkFailed(f"{name}: {failure(self.client, code, output)}")

    def _where(self, name: str) -> list[str]:
        return [name, f"--project={self._options.project}", f"--zone={self._options.zone}"]
