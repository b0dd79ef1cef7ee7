"""A process on this machine that trains jobs one after the other, as its launcher sees it.

To start Python, import JAX and compile a step takes seconds, as long as a small run trains. So a process that has
brought a job to its result waits for the next one, and trains a run of the same shape with the program that it has. Any
other end of a job, by an exception, a signal or an out-of-memory, is the end of the process.

The process is `python -m moe_jax.cli.train_jobs` with the flags of its first job. Its standard input is a socket, where
it writes the exit code of each job that has reached its result and reads the next job, a line each. The launcher's
death, in any way, closes the socket; the process then saves and stops.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Hashable, Sequence
from pathlib import Path

from moe_jax.config.identity import StepShape
from moe_jax.sweep.jobs import Job
from moe_jax.sweep.manifest import PlannedRun

_END_SECONDS = 10.0  # an idle process ends at once, unless it hangs
# A process grows by 15 to 40 MB with each shape that it compiles (seen); it does not by runs of one shape.
_MOST_SHAPES = 8


class Worker:
    """A process that trains one job at a time; `shape` is that of its newest job, `module` that of all."""

    def __init__(self, job: Job, flags: Sequence[str], log: Path):
        """Starts the process with `job`: the flags of `train`, and the file that gets all that it prints."""
        self.shape, self.module, self._shapes = shape_of(job), module_of(job), 1
        self._socket, theirs = socket.socketpair()
        # It has a session of its own, so that Ctrl-C reaches the launcher only, which then stops its workers in order.
        with theirs, open(log, "ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "moe_jax.cli.train_jobs", *flags], stdin=theirs, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        self._socket.setblocking(False)

    def give(self, job: Job, flags: Sequence[str], log: Path) -> bool:
        """Gives the next job to a process that waits. Returns False where a new process has to train it: this one has
        ended meanwhile, has compiled many shapes, or has imported a module that the job does not."""
        self._shapes += shape_of(job) != self.shape
        if self._shapes > _MOST_SHAPES or module_of(job) != self.module:
            return False
        open(log, "ab").close()  # the launcher says where that cannot be done
        try:
            self._socket.sendall(json.dumps({"flags": list(flags), "log": str(log)}).encode() + b"\n")
        except OSError:
            return False
        self.shape = shape_of(job)
        return True

    def code(self) -> int | None:
        """The exit code of the newest job; None while it is under way."""
        with contextlib.suppress(OSError):  # it has said nothing yet, or is gone
            if said := self._socket.recv(64):
                return int(said)
        return self.process.poll()

    def ask_to_stop(self) -> None:
        """Asks the process to save its job and end."""
        self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(OSError):  # it is gone
            self._socket.shutdown(socket.SHUT_WR)  # one that has just reached its result reads the end

    def stopped(self, seconds: float) -> int:
        """The exit code of the job of a process that was asked to stop; kills it after so many seconds."""
        self._wait(seconds)
        return self.code()

    def close(self) -> None:
        """Ends a process that trains nothing."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._wait(_END_SECONDS)
        self._socket.close()

    def _wait(self, seconds: float) -> None:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def shape_of(job: Job) -> Hashable:
    """Equal for jobs that one compiled program trains."""
    run = _a_run(job)
    return StepShape(run.config, run.counts.vocab_size).key, run.config.mesh, max(len(job.runs), 1)


def module_of(job: Job) -> str | None:
    """The user's module that a job's process imports: it may set what it likes, so no run with another router may come
    after it."""
    moe = _a_run(job).config.moe
    return None if moe is None else moe.router_module


def _a_run(job: Job) -> PlannedRun:
    return job.trunk.planned if job.is_trunk else job.runs[0]
