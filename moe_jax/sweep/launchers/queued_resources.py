"""`--launcher=queued-resources`: TPU slices by gcloud, without a GKE cluster.

The jobs are dealt among --queues slices, and each slice works through its list: all its hosts start the same jobs in
the same order (tpu_scripts/work_queue.sh) and pass over jobs that are done. So hosts need no claims, and a host that
comes back after a maintenance starts its list again. A slice deletes itself when its list has ended, whether the jobs
are done, diverged, refused or out of restarts, and when its set-up fails; the submitter need not be there. A slice
whose capacity was taken away (SUSPENDED) costs nothing and does nothing: `submit --retry_failed` deletes it and gives
the rest of its list to a new one.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from moe_jax.errors import UserError, WorkFailed
from moe_jax.provenance import git_commit, source_tree
from moe_jax.sweep.launchers import slices
from moe_jax.sweep.launchers.clients import Command, call, failure_sentence
from moe_jax.sweep.launchers.quoting import gcloud_dict
from moe_jax.sweep.launchers.remote import RemoteLauncher, add_shared_filesystem_flag, options_from_flags
from moe_jax.sweep.submission_records import Submission

_RESOURCES = ["gcloud", "compute", "tpus", "queued-resources"]
_DEAD = ("SUSPENDING", "SUSPENDED", "FAILED", "DELETING")
_MOST_METADATA = 200_000  # of the 256 KiB that a value may have
# Flags of gcloud that submit sets itself.
_OURS = (
    "--node-id", "--node-count", "--node-prefix", "--project", "--zone", "--accelerator-type", "--runtime-version",
    "--spot", "--metadata", "--metadata-from-file", "--async",
)  # fmt: skip


def add_flags(group: argparse._ArgumentGroup) -> None:
    """Adds the flags of --launcher=queued-resources."""
    group.add_argument("--project", required=True, help="Google Cloud project")
    group.add_argument("--zone", required=True, help="for example us-east5-a")
    group.add_argument("--accelerator_type", required=True, help="for example v5litepod-16")
    group.add_argument("--runtime_version", required=True, help="for example v2-alpha-tpuv5-lite")
    group.add_argument("--spot", action="store_true", help="cheaper capacity that may be taken away")
    group.add_argument(
        "--queues", type=int, default=1, metavar="N", help="slices at most, each with a list of jobs (default 1)"
    )
    add_shared_filesystem_flag(group)


def make(flags: argparse.Namespace, workdir: str, extra: Sequence[str]) -> "QueuedResources":
    """The launcher that these flags ask for. Raises UserError on flags that do not fit."""
    return QueuedResources(options_from_flags(Options, flags, extra), workdir, flags.shared_filesystem)


@dataclasses.dataclass(frozen=True)
class Options:
    """The values of its flags. Raises UserError where gcloud could not take them."""

    project: str
    zone: str
    accelerator_type: str  # v5litepod-16
    runtime_version: str  # v2-alpha-tpuv5-lite
    spot: bool
    queues: int  # slices, at most
    max_restarts: int  # of each job
    extra: tuple[str, ...]  # passed on unchanged

    def __post_init__(self):
        if self.queues < 1:
            raise UserError(f"--queues={self.queues}: must be at least 1")
        for flag in self.extra:
            if flag.partition("=")[0] in _OURS:
                raise UserError(f"{flag}: is set by submit; its own flags stand in --launcher=queued-resources --help")


class QueuedResources(RemoteLauncher):
    """One slice a batch; the jobs of a batch are trained one after the other."""

    client = "gcloud"
    how_to_get_it = "https://cloud.google.com/sdk/docs/install says how"

    def __init__(self, options: Options, workdir: str, shared_filesystem: bool):
        super().__init__(workdir, shared_filesystem)
        self._options = options
        self.slices = slices.of_tpu_vm(options.accelerator_type)
        self.address = f"queued-resources:{options.project}/{options.zone}"
        tree, commit = source_tree(), git_commit()
        if tree is None or commit is None:
            raise UserError(
                f"{tree or Path(__file__).parents[2]}: is no git checkout of moe_jax, so its code cannot be sent to "
                "the hosts; submit from a clone"
            )
        self._scripts = tree / "tpu_scripts"
        self._commit = commit.rstrip("+")  # what is not committed is not sent
        self._code = f"{workdir.rstrip('/')}/code/{self._commit[:12]}.tar.gz"

    def preparation(self) -> list[Command]:
        return [[str(self._scripts / "upload_code.sh"), self._commit, self._code]]

    def batches(self, submissions: Sequence[Submission]) -> list[list[Submission]]:
        """Deals the longest job first, each to the batch with the least work. A job that is taken over from a dead
        submitter stays in its batch."""
        taken: dict[str, list[Submission]] = {}
        for submission in submissions:
            if submission.taken_over is not None:
                taken.setdefault(submission.taken_over.batch, []).append(submission)
        fresh = [s for s in submissions if s.taken_over is None]
        queues: list[list[Submission]] = [[] for _ in range(min(self._options.queues, len(fresh)))]
        load = [0.0] * len(queues)
        for submission in sorted(fresh, key=lambda s: -s.job.train_flops):
            i = load.index(min(load))
            queues[i].append(submission)
            load[i] += submission.job.train_flops
        return [*taken.values(), *queues]

    def batch_name(self, batch: Sequence[Submission]) -> str:
        first = batch[0]
        return first.id if first.taken_over is None else first.taken_over.batch

    def command(self, batch: Sequence[Submission]) -> Command:
        o, name = self._options, self.batch_name(batch)
        jobs = ";".join(" ".join(submission.job.flags) for submission in batch)
        if len(jobs) > _MOST_METADATA:
            raise UserError(f"--queues={o.queues}: {len(batch)} jobs are too many for one slice's metadata; take more")
        metadata = {
            "moe-jax-workdir": self.workdir, "moe-jax-jobs": jobs, "moe-jax-code": self._code,
            "moe-jax-commit": self._commit, "moe-jax-restarts": str(o.max_restarts), "moe-jax-queue": name,
            "moe-jax-zone": o.zone, "moe-jax-project": o.project,
        }  # fmt: skip
        return [
            *_RESOURCES, "create", name, f"--node-id={name}", f"--project={o.project}", f"--zone={o.zone}",
            f"--accelerator-type={o.accelerator_type}", f"--runtime-version={o.runtime_version}",
            *(["--spot"] if o.spot else []), "--scopes=cloud-platform",
            f"--metadata-from-file={gcloud_dict({'startup-script': str(self._scripts / 'startup.sh')})}",
            f"--metadata={gcloud_dict(metadata)}", "--async", *o.extra,
        ]  # fmt: skip

    def already_exists(self, name: str, output: str) -> bool:
        return "ALREADY_EXISTS" in output or "already exists" in output

    def find_lost(self, batches: Sequence[str]) -> set[str]:
        """Those whose slice is dead or does not exist."""
        return {name for name in batches if self._state(name) in (None, *_DEAD)}

    def delete_lost(self, batches: Sequence[str]) -> None:
        for name in batches:
            if self._state(name) in _DEAD:
                code, output = call([*_RESOURCES, "delete", *self._resource(name), "--force", "--quiet"])
                if code != 0:
                    raise WorkFailed(f"{name}: {failure_sentence(self.client, code, output)}")

    def _state(self, name: str) -> str | None:
        """The state that gcloud reports; None where there is no queued resource of this name."""
        code, output = call([*_RESOURCES, "describe", *self._resource(name), "--format=value(state.state)"])
        if code == 0:
            return (output.split() or [""])[-1]
        if "NOT_FOUND" in output or "not found" in output.lower():
            return None
        raise WorkFailed(f"{name}: {failure_sentence(self.client, code, output)}")

    def _resource(self, name: str) -> list[str]:
        return [name, f"--project={self._options.project}", f"--zone={self._options.zone}"]
