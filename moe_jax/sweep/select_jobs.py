"""Selects the jobs of a sweep that are submitted now, and says why the others are not."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from moe_jax.errors import UserError
from moe_jax.sweep import jobs as jobs_lib
from moe_jax.sweep.jobs import Job
from moe_jax.sweep.manifest import Manifest, PlannedRun
from moe_jax.sweep.read_many import read_many
from moe_jax.sweep.run_state import RunState, State, state_of
from moe_jax.sweep.submission_records import QUEUED, Submission, SubmissionRecord, next_submission
from moe_jax.sweep.workdir import Workdir
from moe_jax.text import one_line

_WORST_FIRST = (State.RUNNING, State.DAMAGED, State.FAILED, State.STALE, State.QUEUED)
_RETRIED = (State.DAMAGED, State.FAILED, State.STALE)
_UNSURE = "unsure"  # it is unknown whether its launcher has the job


@dataclasses.dataclass(frozen=True)
class JobState:
    """A job's state, from the files of its runs."""

    job: Job
    state: State  # the worst of its runs without a result; with none left, diverged or done
    open_runs: tuple[str, ...]  # without a result
    sentence: str
    runs: tuple[RunState, ...]  # in the job's order


@dataclasses.dataclass(frozen=True)
class LauncherView:
    """The facts about a launcher that decide which jobs it is given."""

    address: str | None  # as in its records; None: this machine, which keeps none
    find_lost: Callable[[list[str]], set[str]] = lambda batches: set()  # those that will not train their jobs any more
    waits_for_running: bool = False  # it takes runs that another process is training, and waits for that process


@dataclasses.dataclass(frozen=True)
class RetryRequest:
    """The jobs that the user wants to submit again."""

    failed: bool = False  # all that failed, are damaged or stale, or whose batch is lost
    jobs: tuple[str, ...] = ()  # these, whatever their state
    reruns: tuple[str, ...] = ()  # the jobs of these runs; what the runs have is set aside, and they begin anew


@dataclasses.dataclass(frozen=True)
class Selection:
    """The jobs that are submitted, and why the others are not."""

    submissions: list[Submission]
    left_alone: list[str]  # sentences
    to_train: list[Job]  # the jobs of `submissions` without the runs that have a result
    lost_batches: set[str]  # batches that will not train their jobs any more
    damaged: list[str]  # sentences: what in the submitted jobs' runs cannot be read


def job_states(workdir: Workdir, manifest: Manifest) -> list[JobState]:
    """The state of every job of a sweep. A trunk and its branches are one job."""
    now = time.time()

    def look(job: Job) -> JobState:
        runs = tuple(state_of(run, workdir.run_dir(run.name), now) for run in job.runs)
        left = [s for s in runs if s.result is None]
        if not left:
            state = State.DIVERGED if any(s.state == State.DIVERGED for s in runs) else State.DONE
            return JobState(job, state, (), "", runs)
        if job.is_trunk:
            trunk = jobs_lib.trunk_state(job.trunk, workdir, now)
            left += [trunk] if trunk.state in _WORST_FIRST else []
        worst = min(left, key=lambda s: _WORST_FIRST.index(s.state))
        return JobState(job, worst.state, tuple(s.name for s in runs if s.result is None), worst.sentence, runs)

    return read_many(look, jobs_lib.jobs_of(manifest.runs, apart=False))


def select_jobs(
    workdir: Workdir,
    manifest: Manifest,
    records: Mapping[str, SubmissionRecord],
    request: RetryRequest,
    launcher: LauncherView,
) -> Selection:
    """Selects the jobs without a result that no launcher has, and those that `request` names. `records` has the newest
    record of each job. Raises UserError where `request` names an unknown job or run, or a run that is under way."""
    asides = workdir.asides()
    holders = _holders(records, asides)
    states = job_states(workdir, manifest)
    reruns = _reruns(request.reruns, states, holders, asides)
    states = [part for seen in states for part in _split_job(seen, holders, reruns)]
    _check_names(request.jobs, states)
    ours = {r.batch for r in holders.values() if r.state == QUEUED and r.launcher == launcher.address}
    lost = launcher.find_lost(sorted(ours)) if request.failed and ours else set()
    submissions, said, left, to_train, damaged = [], [], Counter(), [], []
    for seen in states:
        job, record = seen.job, next((holders[name] for name in seen.open_runs if name in holders), None)
        why_not = _why_not(seen, record, request.failed, lost, launcher)
        if job.name in (*request.jobs, *reruns) or why_not is None:
            submission = next_submission(manifest.sweep, job, records.get(job.name), launcher.address)
            submissions.append(dataclasses.replace(submission, reruns=tuple(reruns & set(seen.open_runs))))
            to_train.append(jobs_lib.left_of(job, seen.open_runs))
            unread = (run for run in seen.runs if run.state == State.DAMAGED and run.name not in reruns)
            damaged += [f"{run.name} is damaged and submitted again: {run.sentence}" for run in unread]
        elif why_not == _UNSURE:
            said.append(
                f"{job.name}: its submission as {record.id} to {record.launcher} was interrupted, so that launcher may "
                f"have it or not; submit it there again, or, if it has no such job, give --retry={job.name}"
            )
        elif why_not in _RETRIED:
            said.append(
                f"{job.name}: {why_not} ({one_line(seen.sentence) or 'no heartbeat'}); submitted before as "
                f"{record.id}, --retry_failed submits it again"
            )
        else:
            left[why_not] += 1
    if left:
        said.append(f"left alone: {', '.join(f'{n:,} {why}' for why, n in left.items())}")
    return Selection(submissions, said, to_train, lost, damaged)


def _holders(records: Mapping[str, SubmissionRecord], asides: Mapping[str, float]) -> dict[str, SubmissionRecord]:
    """run -> the newest record of a job that trains it. No record holds a run that was set aside after it."""
    holders: dict[str, SubmissionRecord] = {}
    for record in sorted(records.values(), key=lambda record: record.time):
        for run in record.runs:
            if record.state != QUEUED or asides.get(run, 0.0) <= record.time:
                holders[run] = record
            else:
                holders.pop(run, None)
    return holders


def _split_job(seen: JobState, holders: Mapping[str, SubmissionRecord], reruns: set[str]) -> list[JobState]:
    """The job itself, or one job a run where some of its runs were submitted alone or are to be trained again. (An
    extended grid makes trunks and packs of runs that were submitted alone.)"""
    apart = {name for name in seen.open_runs if name in holders and holders[name].job != seen.job.name}
    if not (apart or reruns & {run.name for run in seen.job.runs}):
        return [seen]
    return [_single_run(run, state, run.name in reruns) for run, state in zip(seen.job.runs, seen.runs, strict=True)]


def _single_run(run: PlannedRun, seen: RunState, rerun: bool) -> JobState:
    job = jobs_lib.run_job(run, None)
    if rerun:
        return JobState(job, State.QUEUED, (run.name,), "", (seen,))
    return JobState(job, seen.state, (run.name,) if seen.result is None else (), seen.sentence, (seen,))


def _why_not(
    seen: JobState, record: SubmissionRecord | None, retry_failed: bool, lost: set[str], launcher: LauncherView
) -> str | None:
    """The state in which a job is left alone; None where it is submitted."""
    if not seen.open_runs or (record is None and seen.state == State.RUNNING and not launcher.waits_for_running):
        return seen.state
    if record is None:
        return None
    if record.is_abandoned:
        return None if (record.launcher, record.job) == (launcher.address, seen.job.name) else _UNSURE
    if retry_failed and (seen.state in _RETRIED or record.batch in lost):
        return None
    return seen.state if seen.state in (*_RETRIED, State.RUNNING) else State.QUEUED


def _check_names(names: Sequence[str], states: Sequence[JobState]) -> None:
    known = {seen.job.name: seen for seen in states}
    for name in names:
        if name not in known:
            owner = next((s.job.name for s in states if name in {run.name for run in s.job.runs}), None)
            hint = "a job has the name of its run, trunk or pack" if owner is None else f"that run is in job {owner}"
            raise UserError(f"--retry={name}: the sweep has no such job; {hint}")
        if not known[name].open_runs:
            raise UserError(f"--retry={name}: is {known[name].state}; to train a run of it again, give --rerun=RUN")


def _reruns(
    names: Sequence[str],
    states: Sequence[JobState],
    holders: Mapping[str, SubmissionRecord],
    asides: Mapping[str, float],
) -> set[str]:
    """The runs that are to be set aside. One that was set aside before and has no result since only goes on. Raises
    UserError for an unknown run, or one that is under way."""
    known = {run.name: run for seen in states for run in seen.runs}
    to_set_aside = set()
    for name in names:
        if name not in known:
            raise UserError(f"--rerun={name}: the sweep has no such run; moe-jax status lists them")
        seen = known[name]
        if seen.result is None and name in asides:
            continue
        if seen.result is None and (seen.state == State.RUNNING or (name in holders and seen.state not in _RETRIED)):
            raise UserError(f"--rerun={name}: is {seen.state}; wait for it, or submit its job once more with --retry")
        to_set_aside.add(name)
    return to_set_aside
