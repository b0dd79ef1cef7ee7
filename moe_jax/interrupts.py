"""SIGTERM handled as Ctrl-C, so that a verb that is preempted at any moment ends with code 75."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

_asked = threading.Event()


def asked() -> bool:
    """Whether SIGTERM has come. Its interrupt may be lost: Python drops exceptions that are raised in its own
    callbacks."""
    return _asked.is_set()


@contextlib.contextmanager
def sigterm_as_interrupt(ends: bool = False) -> Iterator[None]:
    """Makes SIGTERM raise KeyboardInterrupt within the block; training, which saves first, sets its own handler inside.

    With `ends` the process ends after the block, and SIGTERM and Ctrl-C are ignored from then on: Python resets its
    handlers while it shuts down, so a late signal would replace the exit code of a verb that is done."""
    if threading.current_thread() is not threading.main_thread():  # handlers can be set nowhere else
        yield
        return

    def interrupt(*_: object) -> None:
        _asked.set()
        raise KeyboardInterrupt

    before, hook = signal.signal(signal.SIGTERM, interrupt), sys.unraisablehook
    sys.unraisablehook = _repeating(hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, signal.SIG_IGN if ends else before)
        if ends:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        _asked.clear()  # a signal in this block does not concern what the process does next


def _repeating(hook: Callable[[Any], object]) -> Callable[[Any], object]:
    """A hook for exceptions that Python drops, as in a garbage collector's callback: an interrupt among them comes
    again a moment later, instead of a text on standard error."""

    def repeat(dropped: Any) -> None:
        if not issubclass(dropped.exc_type, KeyboardInterrupt):
            hook(dropped)
            return
        again = signal.SIGTERM if asked() else signal.SIGINT
        threading.Timer(0.01, signal.pthread_kill, (threading.main_thread().ident, again)).start()

    return repeat
