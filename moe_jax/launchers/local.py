"""Runs of a sweep on this machine, one process each, so that a crash or an out-of-memory ends one run only.

State lives in the workdir alone: a sweep that is killed and started again sees there what is done, and a run that
another process on this machine is training (its lock says so) is waited for, not trained twice.
"""

import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from moe_jax import errors
from moe_jax.progress import Display, describe
from moe_jax.tables import duration
from moe_jax.workdir import PlannedRun, RunDir, RunState, Workdir, state_of

_POLL_SECONDS = 0.2
_HEARTBEAT_SECONDS = 1.0  # what the bars show comes from the children's heartbeats
_STOP_SECONDS = 60.0


@dataclasses.dataclass
class _Child:
    run: PlannedRun
    folder: RunDir
    process: subprocess.Popen
    log: IO[bytes]
    log_path: Path
    attempts_before: int


class LocalLauncher:
    """Trains `runs`, `jobs` at a time."""

    def __init__(self, workdir: Workdir, runs: Sequence[PlannedRun], jobs: int, display: Display):
        self._workdir, self._runs, self._jobs, self._display = workdir, runs, jobs, display
        self._children: list[_Child] = []
        self._tried: set[str] = set()
        self._started_at = time.monotonic()

    def go(self) -> list[RunState]:
        """Every run that has no result is started once. Gives the states in the end.

        Raises Stopped on SIGTERM or SIGINT, after the children have saved."""
        old = {number: signal.signal(number, _stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return self._loop()
        except _AskedError:
            self._stop_children()
            done = sum(s.result is not None for s in self._states())
            raise errors.Stopped(
                f"stopped with {done} of {len(self._runs)} runs done; what was running is saved, "
                "the same command goes on there"
            ) from None
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _loop(self) -> list[RunState]:
        states = {state.name: state for state in self._states()}
        at_start = sum(s.result is not None for s in states.values())
        open_runs = [run for run in self._runs if states[run.name].result is None]
        while open_runs or self._children:
            self._reap(states)
            open_runs = [r for r in open_runs if r.name not in self._tried and not self._done_elsewhere(r, states)]
            for run in open_runs:
                if len(self._children) >= self._jobs:
                    break
                folder = self._workdir.run_dir(run.name)
                if folder.is_locked():
                    self._display.update(run.name, 0, run.config.steps, "another process trains it; waiting")
                else:
                    self._start(run, folder)
            self._show(states, at_start)
            time.sleep(_POLL_SECONDS)
        return self._states()

    def _done_elsewhere(self, run: PlannedRun, states: dict[str, RunState]) -> bool:
        """A run that another process finished while we waited for it."""
        folder = self._workdir.run_dir(run.name)
        if folder.is_locked() or not folder.result_path.exists():
            return False
        states[run.name] = state_of(run, folder, time.time())
        self._display.remove(run.name)
        return states[run.name].result is not None

    def _states(self) -> list[RunState]:
        now = time.time()
        return [state_of(run, self._workdir.run_dir(run.name), now) for run in self._runs]

    def _start(self, run: PlannedRun, folder: RunDir) -> None:
        self._tried.add(run.name)
        folder.create()
        attempts_before = len(folder.attempts())
        log_path = Path(folder.log) if "://" not in str(folder.log) else Path(tempfile.mkdtemp()) / "log.txt"
        log = open(log_path, "ab")  # noqa: SIM115 (closed when the child ends)
        command = [
            sys.executable, "-m", "moe_jax.train", f"--workdir={self._workdir.path}", f"--run={run.name}",
            f"--heartbeat_seconds={_HEARTBEAT_SECONDS}", "--stop_with_parent",
        ]  # fmt: skip
        # Its standard input is a pipe from us: when we die, however we die, the child reads its end, saves and stops.
        # A session of its own, so that Ctrl-C reaches us only, and we stop the children in order.
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self._children.append(_Child(run, folder, process, log, log_path, attempts_before))

    def _reap(self, states: dict[str, RunState]) -> None:
        for child in list(self._children):
            code = child.process.poll()
            if code is None:
                continue
            self._children.remove(child)
            self._display.remove(child.run.name)
            states[child.run.name] = self._ended(child, code)
            self._display.say(_sentence(child, code, states[child.run.name]))

    def _ended(self, child: _Child, code: int) -> RunState:
        """Closes a child's files, and notes how it ended where it could not do so itself (a kill, an out-of-memory)."""
        child.process.stdin.close()
        child.log.close()
        if code not in (errors.DONE, errors.DIVERGED):
            number = len(child.folder.attempts())
            if number == child.attempts_before:
                number = child.folder.begin_attempt()  # it ended before it could say that it began
            child.folder.end_attempt(number, code, _last_words(child.log_path) or f"ended with code {code}")
        return state_of(child.run, child.folder, time.time())

    def _show(self, states: dict[str, RunState], at_start: int) -> None:
        for child in self._children:
            beat = child.folder.heartbeat() or {}
            self._display.update(child.run.name, int(beat.get("step") or 0), child.run.config.steps, describe(beat))
        done = sum(s.result is not None for s in states.values())
        failed = sum(s.state == "failed" for s in states.values())
        self._display.update(
            "grid", done, len(self._runs), self._remaining(states, done - at_start, failed), now=done == len(self._runs)
        )

    def _remaining(self, states: dict[str, RunState], new: int, failed: int) -> str:
        """Time left by FLOPs, the only thing that is known of runs that have not begun."""
        text = f"runs done{f', {failed} failed' if failed else ''}"
        if not new:
            return text
        seconds = time.monotonic() - self._started_at
        flops = {run.name: run.counts["train_flops"] for run in self._runs}
        spent = {c.run.name for c in self._children} | self._tried
        done_flops = sum(flops[n] for n in self._tried if states[n].result is not None)
        left_flops = sum(f for n, f in flops.items() if states[n].result is None and n not in spent) + sum(
            flops[c.run.name] * (1 - int((c.folder.heartbeat() or {}).get("step") or 0) / c.run.config.steps)
            for c in self._children
        )
        return f"{text}, about {duration(seconds * left_flops / done_flops)} left" if done_flops else text

    def _stop_children(self) -> None:
        for child in self._children:
            child.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + _STOP_SECONDS
        for child in self._children:
            try:
                code = child.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                code = child.process.wait()
            # One that was still importing is ended by the signal itself.
            self._ended(child, errors.STOPPED if code == -signal.SIGTERM else code)


def _sentence(child: _Child, code: int, state: RunState) -> str:
    if state.state == "done":
        return _last_words(child.log_path) or f"{child.run.name}: done"
    if state.state == "diverged":
        return f"{child.run.name}: diverged at step {state.step}"
    return f"{child.run.name}: failed with code {code}: {state.sentence}; its log is {child.log_path}"


def _last_words(log: Path) -> str:
    """The last line that a process printed."""
    try:
        with open(log, "rb") as f:
            f.seek(max(0, log.stat().st_size - 4096))
            lines = [line.strip() for line in f.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return lines[-1].removeprefix("moe-jax: ") if lines else ""


class _AskedError(Exception):
    """Somebody wants us to stop."""


def _stop(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # once is enough; the children are being stopped
    raise _AskedError
