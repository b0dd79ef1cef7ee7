"""The progress of a long fit, on standard error: standard output holds its tables."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from moe_jax.progress import Display

_QUIET_SECONDS = 5.0  # a shorter fit says nothing


@contextmanager
def shown() -> Iterator[Callable[[str, int, int], None]]:
    """Yields what laws.fit calls with a stage, how many parts of it are done, and of how many."""
    began, stages = time.monotonic(), []
    with Display(sys.stderr) as display:

        def progress(stage: str, done: int, total: int) -> None:
            if time.monotonic() - began < _QUIET_SECONDS:
                return
            for other in set(stages) - {stage}:
                display.remove(other)
            stages[:] = [stage]
            with suppress(OSError):  # nobody reads it any more: the fit goes on
                display.update(stage, done, total, "")

        yield progress
