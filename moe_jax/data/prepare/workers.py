"""Calls one function on many arguments in several processes, and counts tokens over all of them.

Workers end by themselves within a second when their parent is killed or stops early. A part that they had not finished
is not marked as done, so the next start does it again.
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
# Set in each worker, once, so that the function's caches (a vocabulary's words) serve all its arguments.
_function = None


@contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Within this context `count_tokens` adds up over the processes of `map_unordered`; yields a function that reads
    the sum."""
    global _counter
    _counter = counter = _context.Value("q", 0)
    try:
        yield lambda: counter.get_obj().value  # without the lock, which a killed worker may hold
    finally:
        _counter = None


def count_tokens(n: int) -> None:
    """Adds n to the sum of `counting`; without effect outside it."""
    if _counter is not None:
        with _counter.get_lock():
            _counter.value += n


def map_unordered(function: Callable[[A], R], arguments: Iterable[A], processes: int) -> Iterator[tuple[A, R]]:
    """Yields (argument, function(argument)) as they finish, in any order.

    With one process, or one argument, the calls are made in this process.
    Raises what a worker raises, and WorkFailed if a worker dies."""
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
        raise WorkFailed("a worker process died (out of memory?); start again with fewer --workers") from e
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(parent: int, stop, counter, function: Callable) -> None:
    global _counter, _function
    _counter, _function = counter, function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of the terminal; the parent handles it

    def watch() -> None:
        while not stop.wait(0.5) and os.getppid() == parent:
            pass
        os._exit(STOPPED)

    threading.Thread(target=watch, daemon=True).start()


def _call(argument):
    return _function(argument)
