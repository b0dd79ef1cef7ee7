"""A lock on a local file, for one process at a time."""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

from etils import epath

from moe_jax.files.whole import is_remote


@contextmanager
def locked(path: epath.Path, wait: Callable[[], object] | None = None) -> Iterator[bool]:
    """Locks a local file for the block; the system unlocks it however the process ends. Yields whether it is ours.

    If another process has it: False; with `wait`, calls that, waits for the lock and yields True. Always True on an
    object store."""
    if is_remote(path):
        yield True
        return
    with open(path, "ab") as f:
        ours = _try_lock(f)
        if not ours and wait is not None:
            wait()
            fcntl.flock(f, fcntl.LOCK_EX)
            ours = True
        yield ours


def _try_lock(f: BinaryIO) -> bool:
    try:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
