"""Which jobs of a sweep are to be given to a launcher now, and why the others are not."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from moe_jax import jobs as jobs_lib
from moe_jax.errors import UserError
from moe_jax.jobs import Job
from moe_jax.manifest import Manifest, PlannedRun
from moe_jax.runstate import state_of
from moe_jax.submission import QUEUED, SUBMITTING, Record, Ticket, ticket
from moe_jax.tables import one_line
from moe_jax.workdir import Workdir

_READERS = 64
_WORST_FIRST = ("running", "damaged", "failed", "stale", "queued")
_RETRIED = ("damaged", "failed", "stale")


@dataclasses.dataclass(frozen=True)
class JobState:
    """What the files of a job's runs say."""

    job: Job
    state: str  # of runstate.STATES
    open_runs: tuple[str, ...]  # without a result
    sentence: str


@dataclasses.dataclass(frozen=True)
class Choice:
    """What is submitted, and why the rest is not."""

    tickets: list[Ticket]
    left_alone: list[str]
    to_train: list[Job]  # the tickets' jobs without the runs that have a result


def job_states(workdir: Workdir, manifest: Manifest) -> list[JobState]:
    """Every job of a sweep as its files say, with its trunk and branches in one."""
    now = time.time()

    def look(job: Job) -> JobState:
        runs = [state_of(run, workdir.run_dir(run.name), now) for run in job.runs]
        left = [s for s in runs if s.result is None]
        if not left:
            word = "diverged" if any(s.state == "diverged" for s in runs) else "done"
            return JobState(job, word, (), "")
        if job.is_trunk:
            trunk = jobs_lib.trunk_state(job.trunk, workdir, now)
            left += [trunk] if trunk.state in _WORST_FIRST else []
        worst = min(left, key=lambda s: _WORST_FIRST.index(s.state))
        return JobState(job, worst.state, tuple(s.name for s in runs if s.result is None), worst.sentence)

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(look, jobs_lib.jobs(manifest.runs, apart=False)))


@dataclasses.dataclass(frozen=True)
class Again:
    """What is submitted although it was before."""

    failed: bool = False  # what failed, was damaged, gives no sign of life, or whose batch is lost
    names: tuple[str, ...] = ()  # these jobs in any case
    reruns: tuple[str, ...] = ()  # the jobs of these runs, which have a result


def choose(
    workdir: Workdir, manifest: Manifest, records: dict[str, Record], again: Again,
    lost: Callable[[list[str]], set[str]], waits: bool = False,
) -> Choice:  # fmt: skip
    """Jobs without a result that no launcher has, and those of `again`. `lost` says which batches will do nothing any
    more; with `waits` a run that somebody trains without a launcher is taken too. Raises UserError where `again` names
    what there is not."""
    states = job_states(workdir, manifest)
    _check_names(again.names, states)
    states, reruns = _reopened(states, again.reruns)
    asked_for = {*again.names, *reruns}
    given, apart = _given(states, records)
    batches = {record.batch for record in given.values() if record.state != SUBMITTING}
    dead = lost(sorted(batches)) if again.failed and batches else set()
    tickets, said, left, to_train = [], [], Counter(), []
    for seen in states:
        if (free := apart.get(seen.job.name)) is not None and seen.job.name not in asked_for:
            left[QUEUED] += len(seen.open_runs) - len(free)
            alone = [jobs_lib.run_job(run, None) for run in free]
            tickets += [ticket(manifest.sweep, job, None) for job in alone]
            to_train += alone
            continue
        record = given.get(seen.job.name)
        why_not = None if seen.job.name in asked_for else _why_not(seen, record, again.failed, dead, waits)
        if why_not is None:
            one = ticket(manifest.sweep, seen.job, records.get(seen.job.name))
            tickets.append(dataclasses.replace(one, reruns=reruns.get(seen.job.name, ())))
            to_train.append(jobs_lib.left_of(seen.job, seen.open_runs))
        elif why_not in _RETRIED:
            said.append(
                f"{seen.job.name}: {why_not} ({one_line(seen.sentence) or 'no sign of life'}); submitted before as "
                f"{record.id}, --retry_failed submits it again"
            )
        else:
            left[why_not] += 1
    if left:
        said.append(f"left alone: {', '.join(f'{n:,} {why}' for why, n in left.items())}")
    return Choice(tickets, said, to_train)


def _given(
    states: Sequence[JobState], records: dict[str, Record]
) -> tuple[dict[str, Record], dict[str, list[PlannedRun]]]:
    """(job -> the record by which a launcher has it, job -> its open runs that none has, where one has the others).

    A grid that was extended makes trunks and packs of runs that were submitted by themselves."""
    holders: dict[str, Record] = {}
    for record in sorted(records.values(), key=lambda record: record.time):
        if not record.is_abandoned:
            holders |= dict.fromkeys(record.runs, record)
    given, apart = {}, {}
    for seen in states:
        held = [holders[name] for name in seen.open_runs if name in holders]
        if not seen.open_runs:
            continue
        if seen.job.name in records:
            given[seen.job.name] = records[seen.job.name]
        elif len(held) == len(seen.open_runs):
            given[seen.job.name] = held[-1]
        elif held:
            free = set(seen.open_runs) - holders.keys()
            apart[seen.job.name] = [run for run in seen.job.runs if run.name in free]
    return given, apart


def _why_not(seen: JobState, record: Record | None, retry_failed: bool, dead: set[str], waits: bool) -> str | None:
    """The state for which a job is left alone; None: it is to be submitted."""
    if not seen.open_runs or (record is None and seen.state == "running" and not waits):
        return seen.state
    if record is None or record.is_abandoned:
        return None
    if retry_failed and (seen.state in _RETRIED or record.batch in dead):
        return None
    if seen.state in _RETRIED or seen.state == "running":
        return seen.state
    # Where the grid was extended since, and what was submitted is done, its trunk has new branches.
    return "queued" if set(seen.open_runs) & set(record.runs) else None


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


def _reopened(states: Sequence[JobState], reruns: Sequence[str]) -> tuple[list[JobState], dict[str, tuple[str, ...]]]:
    """(the states as they are when the results of `reruns` are set aside, job -> those of its runs). Raises UserError
    where there is no such result, or the job has runs that it still trains."""
    jobs = {run.name: seen.job.name for seen in states for run in seen.job.runs}
    for name in reruns:
        if name not in jobs:
            raise UserError(f"--rerun={name}: the sweep has no such run; moe-jax status lists them")
    opened = []
    for seen in states:
        names = tuple(run.name for run in seen.job.runs if run.name in reruns)
        if names and seen.open_runs:
            raise UserError(
                f"--rerun={names[0]}: its job {seen.job.name} has runs without a result ({seen.open_runs[0]} is "
                f"{seen.state}); wait for them, or --retry={seen.job.name} submits the job once more"
            )
        opened.append(dataclasses.replace(seen, state=QUEUED, open_runs=names) if names else seen)
    return opened, {seen.job.name: seen.open_runs for seen in opened if set(seen.open_runs) & set(reruns)}
