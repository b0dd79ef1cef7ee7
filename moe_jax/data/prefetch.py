"""Loads the next batches in a thread while the device works on the current one."""

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Prefetcher(Generic[T]):
    """Iterates over (step, load(step)) for first ≤ step < last; loads at most `depth` steps ahead.

    An exception of `load` is raised by the iterator, at its step. Use as a context manager: leaving it ends the thread.
    """

    def __init__(
        self, load: Callable[[int], T], first: int, last: int,
        waiting: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext, depth: int = 2,
    ):  # fmt: skip
        """`waiting` makes a context that is entered while the consumer waits for a batch."""
        self._waiting = waiting
        self._load, self._steps = load, range(first, last)
        self._ready: queue.Queue = queue.Queue(depth)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[int, T]]:
        for step in self._steps:
            with self._waiting():
                loaded, error = self._ready.get()
            if error is not None:
                raise error
            yield step, loaded

    def close(self) -> None:
        """Ends the thread once its current load is done. May be called twice."""
        self._closing.set()
        while self._thread.is_alive():
            _drain(self._ready)
            self._thread.join(0.01)

    def __enter__(self) -> "Prefetcher[T]":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _work(self) -> None:
        for step in self._steps:
            if self._closing.is_set():
                return
            try:
                item = (self._load(step), None)
            except BaseException as e:  # of any kind: the consumer handles it
                item = (None, e)
            self._ready.put(item)
            if item[1] is not None:
                return


def _drain(full: queue.Queue) -> None:
    """Empties the queue, so that a blocked put returns."""
    while True:
        try:
            full.get_nowait()
        except queue.Empty:
            return
