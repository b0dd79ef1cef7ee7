"""SIGTERM before and around a verb's work: as Ctrl-C, so that a preempted verb ends with code 75 wherever it is."""

import contextlib
import signal
import threading
from collections.abc import Iterator

_asked = threading.Event()


def asked() -> bool:
    """Whether SIGTERM came. An interrupt can be lost: Python drops what is raised inside a callback of its own."""
    return _asked.is_set()


@contextlib.contextmanager
def sigterm_as_interrupt(ends: bool = False) -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt; what has a better answer (training saves) sets a handler of its own inside.

    ends: the process ends with it, and SIGTERM is ignored from then on. Python gives handlers up while it closes down,
    and the signal would take the place of the exit code of a verb that is done."""
    if threading.current_thread() is not threading.main_thread():  # only there can handlers be set
        yield
        return

    def interrupt(*_: object) -> None:
        _asked.set()
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if ends else before)
        _asked.clear()  # what came in here is no request to what the process does next
