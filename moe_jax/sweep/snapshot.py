"""A sweep at one moment, from files alone: the state, progress and speed of every run and trunk."""

import dataclasses
import time
from collections import Counter

from moe_jax import files, text
from moe_jax.sweep import jobs, submission_records
from moe_jax.sweep.heartbeat import Phase
from moe_jax.sweep.jobs import Job
from moe_jax.sweep.known_results import KnownResults
from moe_jax.sweep.manifest import Manifest
from moe_jax.sweep.read_many import read_many
from moe_jax.sweep.run_state import STALE_SECONDS, RunState, State, state_of
from moe_jax.sweep.workdir import Workdir
from moe_jax.text import number

# The states of a run that needs somebody's attention.
URGENT = (State.FAILED, State.DAMAGED, State.STALE, State.DIVERGED)


@dataclasses.dataclass(frozen=True)
class Line:
    """A run or a trunk at one moment; a value that is not known is None."""

    name: str
    kind: str  # run or trunk; a trunk has no result
    job: str | None  # the launcher's name for it, if it was submitted
    state: State
    phase: Phase | None  # of a running one
    step: int  # updates done; of a branch from the beginning of its trunk
    steps: int  # updates of the whole run
    train_loss: float | None  # nats per token, at the newest step; of a run with a result the result's
    eval_loss: float | None  # nats per token, of the result
    tokens_per_second: float | None
    seconds_left: float | None  # of a running one
    attempts: int  # starts so far
    age_seconds: float | None  # since the newest heartbeat
    sentence: str  # of one in a state of URGENT: what happened
    share: float  # its own FLOPs (a branch's without the trunk's) as a share of the sweep's
    share_done: float  # of these, how much is trained


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The sweep at one moment."""

    workdir: str
    time: float
    lines: tuple[Line, ...]  # of the runs
    trunks: tuple[Line, ...]
    notes: tuple[str, ...] = ()  # sentences: what of the sweep's files cannot be read

    @property
    def totals(self) -> dict[str, int]:
        """How many runs are in each state that occurs, in the order of State. Trunks are not counted."""
        seen = Counter(line.state for line in self.lines)
        return {state: seen[state] for state in State if seen[state]}

    @property
    def flops_done(self) -> float:
        """The share of the sweep's FLOPs that is done."""
        return sum(line.share * line.share_done for line in (*self.lines, *self.trunks))

    @property
    def finished(self) -> bool:
        """Whether no run is still to be trained."""
        return not {State.QUEUED, State.RUNNING, State.STALE} & self.totals.keys()


def take_snapshot(work: Workdir, manifest: Manifest | None = None, known: KnownResults | None = None) -> Snapshot:
    """Reads every run's files, and the manifest and the known results unless they are given. Raises UserError if the
    folder holds no sweep."""
    manifest, known = manifest or work.existing_manifest(), known or KnownResults(work)
    now = time.time()
    planned = jobs.jobs_of(manifest.runs, packed=False)
    flops = sum(job.train_flops for job in planned)
    submitted, notes = {}, ()
    try:
        submitted = submission_records.queued_as(work)
    except files.DamagedFile as e:
        notes = (f"the launcher's names of the jobs are not known: {e}",)
    lines = read_many(lambda job: _line(work, job, known, submitted.get(job.name), now, flops), planned)
    runs, trunks = (tuple(line for line in lines if line.kind == kind) for kind in ("run", "trunk"))
    return Snapshot(str(work.path), now, runs, trunks, notes)


def _line(work: Workdir, job: Job, known: KnownResults, submitted_as: str | None, now: float, all_flops: float) -> Line:
    if job.is_trunk:
        run, seen = job.trunk.planned, jobs.trunk_state(job.trunk, work, now)
    else:
        run = job.runs[0]
        seen = state_of(run, work.run_dir(run.name), now, known.result)
    heartbeat, result = seen.heartbeat, seen.result
    speed = (result or heartbeat).tokens_per_second
    left = (seen.steps - seen.step) * run.config.batch_tokens / speed if speed else None
    own_steps = (seen.step - job.first_step) / max(1, job.last_step - job.first_step)
    is_running = seen.state == State.RUNNING
    return Line(
        name=job.name,
        kind="trunk" if job.is_trunk else "run",
        job=submitted_as,
        state=seen.state,
        phase=heartbeat.phase if is_running else None,
        step=seen.step,
        steps=seen.steps,
        train_loss=heartbeat.loss if result is None else result.train_loss,
        eval_loss=None if result is None else result.eval_loss,
        tokens_per_second=speed,
        seconds_left=number(left) if is_running else None,
        attempts=seen.attempts,
        age_seconds=None if heartbeat.time is None else max(0.0, now - heartbeat.time),
        sentence=_sentence(seen, submitted_as),
        share=job.train_flops / all_flops,
        share_done={State.DONE: 1.0, State.DAMAGED: 0.0}.get(seen.state, min(1.0, max(0.0, own_steps))),
    )


def _sentence(seen: RunState, submitted_as: str | None) -> str:
    if seen.state == State.DIVERGED and seen.result is not None:
        return f"the loss is not finite at step {seen.result.diverged_step}"
    if seen.state == State.STALE:
        how = "start the sweep again" if submitted_as is None else "use submit --retry_failed"
        return f"no heartbeat for {text.duration(STALE_SECONDS)} or more; to continue it, {how}"
    return seen.sentence if seen.state in URGENT else ""
