"""Runs the jobs of a sweep on this machine, in processes of their own: a crash or an out-of-memory ends one job only.

A process that has brought a job to its result goes on with another, of the same shape where there is one
(local_worker.py).

All state is in the workdir: a sweep that is killed and started again reads there what is done. A run that another
process on this machine is training (it holds the lock) is waited for, not trained twice. A branch starts as soon as its
trunk has saved the step where it leaves.
"""

import dataclasses
import signal
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe_jax import errors, files
from moe_jax.progress import Display
from moe_jax.sweep import jobs
from moe_jax.sweep.heartbeat import Heartbeat
from moe_jax.sweep.jobs import Job
from moe_jax.sweep.launchers.local_worker import Worker, shape_of
from moe_jax.sweep.launchers.remaining import seconds_left
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.run_state import RunState, State, state_of
from moe_jax.sweep.rundir import RunDir
from moe_jax.sweep.workdir import Workdir
from moe_jax.text import duration

_POLL_SECONDS = 0.2
_LOOK_SECONDS = 1.0  # between looks at the files of what might be started
_HEARTBEAT_SECONDS = 1.0  # what the bars show comes from the children's heartbeats
_STOP_SECONDS = 60.0


@dataclasses.dataclass
class _Child:
    job: Job
    folders: list[RunDir]
    worker: Worker
    log_path: Path
    attempts_before: list[int]  # the newest in each folder
    started_at: float = dataclasses.field(default_factory=time.monotonic)


class LocalJobs:
    """Trains `runs` of the workdir's sweep, and the trunks that they branch from, `jobs` at a time."""

    def __init__(self, workdir: Workdir, runs: Sequence[PlannedRun], jobs: int, display: Display):
        self._workdir, self._runs, self._at_once, self._display = workdir, runs, jobs, display
        self._jobs = _jobs_of(workdir, runs)
        self._left: list[Job] = []  # not done, not tried
        self._shapes = {job.name: shape_of(job) for job in self._jobs}
        self._children: list[_Child] = []
        self._waiting: list[Worker] = []  # that have reached their job's result
        # (FLOPs, seconds) of jobs that trained from their first step to the last.
        self._took: list[tuple[float, float]] = []
        self._failed: dict[str, str] = {}  # trunk -> why

    def train(self) -> list[RunState]:
        """Starts every job that is not done once. Returns the final states of the runs.

        Raises Stopped on SIGTERM or SIGINT, after the children have saved."""
        old = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return self._loop()
        except _StopRequested:
            self._stop_children()
            done = sum(s.result is not None for s in self._states())
            raise errors.Stopped(
                f"stopped with {done} of {len(self._runs)} runs done; what was running is saved, "
                "the same command goes on there"
            ) from None
        finally:
            for worker in self._waiting:
                worker.close()
            for number, handler in old.items():
                signal.signal(number, handler)

    def _loop(self) -> list[RunState]:
        states = {run.name: self._state(run) for job in self._jobs for run in job.runs}
        self._left = [job for job in self._jobs if not self._done(job, states)]
        looked = -_LOOK_SECONDS
        while self._left or self._children:
            ended = self._reap(states)
            self._left = [job for job in self._left if job.waits_for not in self._failed]
            if len(self._children) < self._at_once and (ended or time.monotonic() - looked >= _LOOK_SECONDS):
                self._start_some(states)
                looked = time.monotonic()
            self._show(states)
            time.sleep(_POLL_SECONDS)
        return self._states()

    def _start_some(self, states: dict[str, RunState]) -> None:
        """Starts jobs that are ready, up to the limit."""
        while len(self._children) < self._at_once and (job := self._next(states)) is not None:
            self._left.remove(job)
            self._start(job)

    def _next(self, states: dict[str, RunState]) -> Job | None:
        """The job to be started next; None where none is ready. What another process has finished meanwhile is dropped.

        One whose program a waiting process has comes first; last comes one whose program another process has or
        compiles just now."""
        kept = {worker.shape for worker in self._waiting}
        busy = {child.worker.shape for child in self._children}

        def preference(job: Job) -> int:
            shape = self._shapes[job.name]
            return 0 if shape in kept else 2 if shape in busy else 1

        for job in sorted(self._left, key=preference):
            if any(folder.is_locked() for folder in job.folders(self._workdir)):
                self._display.update(job.name, 0, job.last_step, "another process trains it; waiting")
            elif self._done(job, states):
                self._left.remove(job)
                self._display.remove(job.name)
            elif jobs.is_ready(job, self._workdir):
                return job
        return None

    def _done(self, job: Job, states: dict[str, RunState]) -> bool:
        """Whether nothing is left to train. The state of a run that has a result by now is read again."""
        if job.is_trunk:
            return jobs.trunk_state(job.trunk, self._workdir, time.time()).state in (State.DONE, State.DIVERGED)
        for run in job.runs:
            if states[run.name].result is None and self._workdir.run_dir(run.name).result_path.exists():
                states[run.name] = self._state(run)
        return all(states[run.name].result is not None for run in job.runs)

    def _state(self, run: PlannedRun) -> RunState:
        return state_of(run, self._workdir.run_dir(run.name), time.time())

    def _states(self) -> list[RunState]:
        """The states of the runs asked for, in their order."""
        job_of = {run.name: job for job in self._jobs for run in job.runs}
        return [self._with_reason(job_of[run.name], self._state(run)) for run in self._runs]

    def _with_reason(self, job: Job, state: RunState) -> RunState:
        why = self._failed.get(job.waits_for or "")
        if why is None or state.result is not None:
            return state
        return dataclasses.replace(state, sentence=f"waits for its trunk {job.waits_for}, which failed: {why}")

    def _start(self, job: Job) -> None:
        folders = job.folders(self._workdir)
        for folder in folders:
            folder.create()
        attempts_before = [folder.newest_attempt for folder in folders]
        log_path = folders[0].log
        log_path = Path(tempfile.mkdtemp()) / "log.txt" if files.is_remote(log_path) else Path(log_path)
        worker = self._worker(job, log_path)
        self._children.append(_Child(job, folders, worker, log_path, attempts_before))

    def _worker(self, job: Job, log_path: Path) -> Worker:
        """A process with this job: one that waits, if possible one that has its program, or a new one."""
        heartbeat = f"--heartbeat_seconds={_HEARTBEAT_SECONDS}"
        flags = [f"--workdir={self._workdir.path}", *job.flags, heartbeat, "--stop_with_parent"]
        self._waiting.sort(key=lambda worker: worker.shape != self._shapes[job.name])
        while self._waiting:
            worker = self._waiting.pop(0)
            if worker.give(job, flags, log_path):
                return worker
            worker.close()
        return Worker(job, flags, log_path)

    def _reap(self, states: dict[str, RunState]) -> bool:
        """Records and reports the children that have ended. Returns whether there were any."""
        ended = [(child, code) for child in self._children if (code := child.worker.code()) is not None]
        for child, code in ended:
            self._children.remove(child)
            self._display.remove(child.job.name)
            if code == errors.DONE and not any(child.attempts_before):
                self._took.append((child.job.train_flops, time.monotonic() - child.started_at))
            for state in self._ended(child, code):
                if not child.job.is_trunk:
                    states[state.name] = state
                elif state.state not in (State.DONE, State.DIVERGED):
                    self._failed[child.job.name] = state.sentence
                self._display.say(_sentence(child, code, state))
            if code in (errors.DONE, errors.DIVERGED):
                self._waiting.append(child.worker)
            else:
                child.worker.close()
        return bool(ended)

    def _ended(self, child: _Child, code: int) -> list[RunState]:
        """Records how a child ended if it could not do so itself (a kill, an out-of-memory)."""
        if child.job.is_trunk:
            self._note(child, code, 0)
            return [jobs.trunk_state(child.job.trunk, self._workdir, time.time())]
        states = []
        for i, run in enumerate(child.job.runs):
            if not child.folders[i].result_path.exists():  # of a pack, some may have ended well
                self._note(child, code, i)
            states.append(self._state(run))
        return states

    def _note(self, child: _Child, code: int, i: int) -> None:
        """Records the end of an attempt in the i-th folder, unless the child did so itself."""
        if code in (errors.DONE, errors.DIVERGED):
            return
        folder = child.folders[i]
        attempt = folder.newest_attempt
        if attempt == child.attempts_before[i]:
            attempt = folder.begin_attempt()  # it ended before it could say that it began
        folder.end_attempt(attempt, code, _last_words(child.log_path) or f"ended with code {code}")

    def _show(self, states: dict[str, RunState]) -> None:
        for child in self._children:
            heartbeat = _heartbeat(child)
            self._display.update(child.job.name, heartbeat.step, child.job.last_step, heartbeat.describe())
        done = self._with_result(states)
        failed = sum(s.state == State.FAILED for s in states.values()) + len(self._failed)
        self._display.update("grid", done, len(self._runs), self._remaining(failed), now=done == len(self._runs))

    def _with_result(self, states: dict[str, RunState]) -> int:
        return sum(states[run.name].result is not None for run in self._runs)

    def _remaining(self, failed: int) -> str:
        text = f"runs done{f', {failed} failed' if failed else ''}"
        if not self._took:
            return text
        left = [(job.train_flops, 1.0) for job in self._left]
        for child in self._children:
            done = (_heartbeat(child).step - child.job.first_step) / (child.job.last_step - child.job.first_step)
            left.append((child.job.train_flops, 1 - min(max(done, 0.0), 1.0)))
        return f"{text}, about {duration(seconds_left(self._took, left, self._at_once))} left"

    def _stop_children(self) -> None:
        for child in self._children:
            child.worker.ask_to_stop()
        until = time.monotonic() + _STOP_SECONDS
        for child in self._children:
            code = child.worker.stopped(max(0.1, until - time.monotonic()))
            # One that was still importing is ended by the signal itself.
            self._ended(child, errors.STOPPED if code == -signal.SIGTERM else code)
            child.worker.close()


def _jobs_of(workdir: Workdir, runs: Sequence[PlannedRun]) -> list[Job]:
    """The jobs of the sweep that train these runs, and the jobs that those wait for."""
    wanted = {run.name for run in runs}
    all_jobs = jobs.jobs_of(workdir.existing_manifest().runs)
    giving = [job for job in all_jobs if any(run.name in wanted for run in job.runs)]
    needed = {job.name for job in giving} | {job.waits_for for job in giving}
    return [job for job in all_jobs if job.name in needed]


def _heartbeat(child: _Child) -> Heartbeat:
    """The newest heartbeat of its runs: some runs of a pack may have ended before the others."""
    found = [heartbeat for folder in child.folders if (heartbeat := folder.heartbeat())]
    return max(found, key=lambda heartbeat: heartbeat.time or 0.0, default=Heartbeat())


def _sentence(child: _Child, code: int, state: RunState) -> str:
    if state.state == State.DONE:
        said = _last_words(child.log_path) if len(child.folders) == 1 else ""
        return said or f"{state.name}: done"
    if state.state == State.DIVERGED:
        return f"{state.name}: diverged at step {state.step}"
    return f"{state.name}: failed with code {code}: {state.sentence}; its log is {child.log_path}"


def _last_words(log: Path) -> str:
    """The last line that a process printed."""
    try:
        with open(log, "rb") as f:
            f.seek(max(0, log.stat().st_size - 4096))
            lines = [line.strip() for line in f.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1].removeprefix("moe-jax: ") if lines else ""


class _StopRequested(Exception):
    """SIGTERM or SIGINT has arrived."""


def _stop(number: int, frame: Any) -> None:
    for other in (signal.SIGTERM, signal.SIGINT):  # once is enough: the children are being stopped
        signal.signal(other, signal.SIG_IGN)
    raise _StopRequested
