"""Reads the files of many runs at a time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Files are small and gs:// answers in tens of milliseconds, so the number of concurrent reads sets the speed.
READERS = 64
_MOST_AT_ONCE = 32  # items that a thread takes at once: to hand over each alone takes as long as to read a local file


def read_many(read: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """[read(item) for item in items] by many threads. Raises what `read` raises."""
    n = max(1, min(_MOST_AT_ONCE, len(items) // READERS))
    parts = [items[i : i + n] for i in range(0, len(items), n)]
    with ThreadPoolExecutor(READERS) as pool:
        return [found for part in pool.map(lambda part: [read(item) for item in part], parts) for found in part]
