"""TensorStore's errors as those of Python's own files."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

_OS_ERROR = re.compile(r"OS error (\d+)")
_DISK_FULL = "No space left on device"


@contextmanager
def tensorstore_errors(path: epath.Path) -> Iterator[None]:
    """Turns TensorStore's ValueError about a full disk or another OS error at `path` into the OSError that Python's own
    files would raise."""
    try:
        yield
    except ValueError as e:
        if found := _OS_ERROR.search(str(e)):
            code = int(found[1])
        elif _DISK_FULL in str(e):
            code = errno.ENOSPC
        else:
            raise
        raise OSError(code, os.strerror(code), os.fspath(path)) from e
