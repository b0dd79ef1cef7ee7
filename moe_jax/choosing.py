"""Which jobs of a sweep are to be given to a launcher now, and why the others are not."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from moe_jax import jobs as jobs_lib
from moe_jax.errors import UserError
from moe_jax.jobs import Job
from moe_jax.manifest import Manifest, PlannedRun
from moe_jax.runstate import RunState, state_of
from moe_jax.submission import QUEUED, Record, Ticket, ticket
from moe_jax.tables import one_line
from moe_jax.workdir import Workdir

_READERS = 64
_WORST_FIRST = ("running", "damaged", "failed", "stale", "queued")
_RETRIED = ("damaged", "failed", "stale")
_UNSURE = "unsure"  # whether its launcher has it


@dataclasses.dataclass(frozen=True)
class JobState:
    """What the files of a job's runs say."""

    job: Job
    state: str  # of runstate.STATES
    open_runs: tuple[str, ...]  # without a result
    sentence: str
    runs: tuple[RunState, ...]  # each, in the job's order


@dataclasses.dataclass(frozen=True)
class Here:
    """The launcher that is asked now. `lost` says which of its batches will do nothing any more."""

    address: str | None  # as in its records; None: this machine, which keeps none
    lost: Callable[[list[str]], set[str]] = lambda batches: set()
    waits: bool = False  # for runs that somebody trains without a launcher


@dataclasses.dataclass(frozen=True)
class Again:
    """What is submitted although it was before."""

    failed: bool = False  # what failed, was damaged, gives no sign of life, or whose batch is lost
    names: tuple[str, ...] = ()  # these jobs in any case
    reruns: tuple[str, ...] = ()  # these runs from their beginning; what they have is set aside


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is submitted, and why the rest is not."""

    tickets: list[Ticket]
    left_alone: list[str]
    to_train: list[Job]  # the tickets' jobs without the runs that have a result
    lost: set[str]  # batches that will do nothing any more


def job_states(workdir: Workdir, manifest: Manifest) -> list[JobState]:
    """Every job of a sweep as its files say, with its trunk and branches in one."""
    now = time.time()

    def look(job: Job) -> JobState:
        runs = tuple(state_of(run, workdir.run_dir(run.name), now) for run in job.runs)
        left = [s for s in runs if s.result is None]
        if not left:
            word = "diverged" if any(s.state == "diverged" for s in runs) else "done"
            return JobState(job, word, (), "", runs)
        if job.is_trunk:
            trunk = jobs_lib.trunk_state(job.trunk, workdir, now)
            left += [trunk] if trunk.state in _WORST_FIRST else []
        worst = min(left, key=lambda s: _WORST_FIRST.index(s.state))
        return JobState(job, worst.state, tuple(s.name for s in runs if s.result is None), worst.sentence, runs)

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(look, jobs_lib.jobs(manifest.runs, apart=False)))


def choose(workdir: Workdir, manifest: Manifest, records: Mapping[str, Record], again: Again, here: Here) -> Choice:
    """Jobs without a result that no launcher has, and those of `again`. Raises UserError where `again` names what there
    is not, or what is under way."""
    asides = workdir.asides()
    holders = _holders(records, asides)
    states = job_states(workdir, manifest)
    reruns = _reruns(again.reruns, states, holders, asides)
    states = [unit for seen in states for unit in _units(seen, holders, reruns)]
    _check_names(again.names, states)
    ours = {r.batch for r in holders.values() if r.state == QUEUED and r.launcher == here.address}
    lost = here.lost(sorted(ours)) if again.failed and ours else set()
    tickets, said, left, to_train = [], [], Counter(), []
    for seen in states:
        job, record = seen.job, next((holders[name] for name in seen.open_runs if name in holders), None)
        why_not = _why_not(seen, record, again.failed, lost, here)
        if job.name in (*again.names, *reruns) or why_not is None:
            one = ticket(manifest.sweep, job, records.get(job.name), here.address)
            tickets.append(dataclasses.replace(one, reruns=tuple(reruns & set(seen.open_runs))))
            to_train.append(jobs_lib.left_of(job, seen.open_runs))
        elif why_not == _UNSURE:
            said.append(
                f"{job.name}: whoever submitted it as {record.id} to {record.launcher} died before that had answered; "
                f"submit it there again, or, where there is no such job, by --retry={job.name}"
            )
        elif why_not in _RETRIED:
            said.append(
                f"{job.name}: {why_not} ({one_line(seen.sentence) or 'no sign of life'}); submitted before as "
                f"{record.id}, --retry_failed submits it again"
            )
        else:
            left[why_not] += 1
    if left:
        said.append(f"left alone: {', '.join(f'{n:,} {why}' for why, n in left.items())}")
    return Choice(tickets, said, to_train, lost)


def _holders(records: Mapping[str, Record], asides: Mapping[str, float]) -> dict[str, Record]:
    """run -> the newest record of a job that is to train it. What was set aside since is trained by none of them."""
    holders: dict[str, Record] = {}
    for record in sorted(records.values(), key=lambda record: record.time):
        for run in record.runs:
            if record.state != QUEUED or asides.get(run, 0.0) <= record.time:
                holders[run] = record
            else:
                holders.pop(run, None)
    return holders


def _units(seen: JobState, holders: Mapping[str, Record], reruns: set[str]) -> list[JobState]:
    """The job; or each of its runs by itself, where some of them were submitted so, or are to be trained again. (A grid
    that was extended makes trunks and packs of runs that were submitted by themselves.)"""
    apart = {name for name in seen.open_runs if name in holders and holders[name].job != seen.job.name}
    if not (apart or reruns & {run.name for run in seen.job.runs}):
        return [seen]
    return [_alone(run, state, run.name in reruns) for run, state in zip(seen.job.runs, seen.runs, strict=True)]


def _alone(run: PlannedRun, seen: RunState, rerun: bool) -> JobState:
    job = jobs_lib.run_job(run, None)
    if rerun:
        return JobState(job, QUEUED, (run.name,), "", (seen,))
    return JobState(job, seen.state, (run.name,) if seen.result is None else (), seen.sentence, (seen,))


def _why_not(seen: JobState, record: Record | None, retry_failed: bool, lost: set[str], here: Here) -> str | None:
    """The state for which a job is left alone; None: it is to be submitted."""
    if not seen.open_runs or (record is None and seen.state == "running" and not here.waits):
        return seen.state
    if record is None:
        return None
    if record.is_abandoned:
        return None if (record.launcher, record.job) == (here.address, seen.job.name) else _UNSURE
    if retry_failed and (seen.state in _RETRIED or record.batch in lost):
        return None
    return seen.state if seen.state in (*_RETRIED, "running") else QUEUED


def _check_names(names: Sequence[str], states: Sequence[JobState]) -> None:
    known = {seen.job.name: seen for seen in states}
    for name in names:
        if name not in known:
            of = next((s.job.name for s in states if name in {run.name for run in s.job.runs}), None)
            hint = "jobs are called as their run or trunk" if of is None else f"its job is called {of}"
            raise UserError(f"--retry={name}: the sweep has no such job; {hint}")
        if not known[name].open_runs:
            raise UserError(
                f"--retry={name}: is {known[name].state}; --rerun=RUN sets a run of it aside and trains it again"
            )


def _reruns(
    names: Sequence[str], states: Sequence[JobState], holders: Mapping[str, Record], asides: Mapping[str, float]
) -> set[str]:
    """Those that are to be set aside: what was already, and has no result since, only goes on. Raises UserError."""
    known = {run.name: run for seen in states for run in seen.runs}
    out = set()
    for name in names:
        if name not in known:
            raise UserError(f"--rerun={name}: the sweep has no such run; moe-jax status lists them")
        seen = known[name]
        if seen.result is None and name in asides:
            continue
        if seen.result is None and (seen.state == "running" or (name in holders and seen.state not in _RETRIED)):
            raise UserError(f"--rerun={name}: is {seen.state}; wait for it, or --retry submits its job once more")
        out.add(name)
    return out
