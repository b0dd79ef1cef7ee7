"""Runs the same function on many arguments in several processes, counting tokens as they come.

Workers end by themselves within a second when their parent is gone (kill -9) or stops early: what they were at is not
marked as done and is simply done again.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from moe_jax.errors import STOPPED, WorkFailed

A = TypeVar("A")
R = TypeVar("R")

# Spawned, not forked: a fork of a process with TensorStore's threads can hang.
_context = multiprocessing.get_context("spawn")
_counter = None
_function = None  # a worker's own, so that what it remembers (a vocabulary's words) serves for all its arguments


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Within it, `count` adds up over all processes that `each` starts; gives the function that reads the sum."""
    global _counter
    _counter = counter = _context.Value("q", 0)
    try:
        yield lambda: counter.get_obj().value  # without the lock: a killed worker may hold it
    finally:
        _counter = None


_function = None  # a worker's own, so that what it remembers (a vocabulary's words) serves for all its arguments


def count(n: int) -> None:
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += n


def each(function: Callable[[A], R], arguments: Iterable[A], processes: int) -> Iterator[tuple[A, R]]:
    """(argument, function(argument)) as they finish, in any order; what a worker raises is raised here.

    With one process, or one argument, everything happens in this one.
    """
    arguments = list(arguments)
    processes = min(processes, len(arguments))
    if processes <= 1:
        yield from ((a, function(a)) for a in arguments)
        return
    stop = _context.Event()
    pool = ProcessPoolExecutor(processes, _context, _begin, (os.getpid(), stop, _counter, function))
    try:
        futures = {pool.submit(_call, a): a for a in arguments}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as e:
        raise WorkFailed("a worker died (out of memory?); start again, with fewer --workers") from e
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int, stop, counter, function: Callable) -> None:
    global _counter, _function
    _counter, _function = counter, function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides

    def watch() -> None:
        while not stop.wait(0.5) and os.getppid() == parent:
            pass
        os._exit(STOPPED)

    threading.Thread(target=watch, daemon=True).start()


def _call(argument):
    return _function(argument)
