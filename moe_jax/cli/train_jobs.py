"""The process in which a sweep on this machine trains: `python -m moe_jax.cli.train_jobs FLAGS`, the flags of `train`.

It trains one job after the other. After one that has reached its result it writes the exit code to standard input, a
socket, and reads the next job there (sweep/launchers/local_worker.py is the other end). Any other end of a job ends the
process, as it would end `train`.

A job gets the same bits as in a process of its own: the program of the last one is kept only where nothing differs
that is compiled into it (training/program.py), and what else a job may leave behind is put back as it was.
"""

import contextlib
import gc
import json
import os
import sys
import warnings
from collections.abc import Iterator, Sequence

from moe_jax import errors
from moe_jax.cli import command, malloc, train


def main(argv: Sequence[str]) -> int:
    from moe_jax.training.program import Programs

    programs = Programs()
    while True:
        with _as_before():
            code = train.main(argv, programs)
        if code not in (errors.DONE, errors.DIVERGED) or (job := _next_job(code)) is None:
            return code
        argv = job["flags"]
        _print_to(job["log"])


def _next_job(code: int) -> dict | None:
    """Tells the launcher how the last job ended; None where there is no other."""
    sys.stdout.flush()
    with contextlib.suppress(OSError):  # the launcher is gone: its end is read below
        os.write(sys.stdin.fileno(), f"{code}\n".encode())
    line = sys.stdin.readline()
    return json.loads(line) if line else None


def _print_to(log: str) -> None:
    """Lets all that this process prints, its libraries too, go to another file."""
    sys.stderr.flush()
    with open(log, "ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Puts back what a job may change in its process, and frees what it held. Warnings that are given once are given
    once a job."""
    environment, hook = dict(os.environ), sys.unraisablehook
    with warnings.catch_warnings():
        yield
    sys.unraisablehook = hook
    if dict(os.environ) != environment:
        os.environ.clear()
        os.environ.update(environment)
    gc.collect()


if __name__ == "__main__":
    malloc.start_again()
    command.prepare_streams()
    command.end(main)
