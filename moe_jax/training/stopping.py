"""Requests to stop: SIGTERM, SIGINT, the cloud's preemption notice, or the launcher's end."""

import os
import select
import signal
import sys
import threading
from types import TracebackType

import jax
from jax.experimental import multihost_utils

from moe_jax import interrupts


class StopRequest:
    """True once the run should save and end. A second SIGINT ends at once, as anywhere."""

    def __init__(self, with_parent: bool = False):
        self._asked = threading.Event()
        if interrupts.asked():
            self._asked.set()
        self._with_parent = with_parent
        self._old: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        if jax.process_count() == 1:  # with several, JAX's coordination service takes SIGTERM (see asked)
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type | None, e: BaseException | None, tb: TracebackType | None) -> None:
        for number, old in self._old.items():
            signal.signal(number, old)

    def asked(self, step: int) -> bool:
        """Whether to stop after `step` updates; the same answer on every process of the run."""
        if self._with_parent and not self._asked.is_set() and _is_closed(sys.stdin.fileno()):
            self._asked.set()
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)  # which JAX passes on to all processes
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked.is_set()

    def _handle(self, number: int, frame: object) -> None:
        self._asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_closed(pipe: int) -> bool:
    """Whether nobody holds the other end: the launcher does, until it dies, however it dies. Reads nothing: the next
    job may wait there."""
    poll = select.poll()
    poll.register(pipe, 0)  # errors and the hang-up are reported in any case
    return bool(poll.poll(0))
