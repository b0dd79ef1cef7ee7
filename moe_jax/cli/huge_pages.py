"""Huge pages for a training on a CPU: a step writes hundreds of megabytes, and each new page of 4 KB costs a fault.

Where the kernel gives huge pages to those who ask (`madvise`, the usual setting), glibc asks for them only if its
environment says so as the process starts. So the process starts again, once, in its place.
"""

import contextlib
import os
import sys
from pathlib import Path

SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"  # glibc 2.35 and later; older ones pass over it


def start_again() -> None:
    """Replaces this process by itself with huge pages asked for. Does nothing where that would change nothing, or where
    GLIBC_TUNABLES says something already."""
    if VARIABLE in os.environ or not sys.orig_argv or not _asked_for():
        return
    os.environ[VARIABLE] = VALUE
    with contextlib.suppress(OSError):  # it then goes on without
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 the command of this process


def _asked_for() -> bool:
    """Whether the kernel gives huge pages where a process asks for them."""
    try:
        return "[madvise]" in SETTING.read_text()
    except OSError:  # no Linux, or a kernel without them
        return False
