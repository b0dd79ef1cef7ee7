"""glibc's malloc as a training on a CPU needs it: huge pages, and memory that is kept for the next step.

A step allocates, writes and frees hundreds of megabytes. By default glibc returns them to the kernel, so that the next
step pays a fault for every 4 KB of them, and the kernel writes zeros there first. glibc reads its settings when a
process starts. So the process starts again, once, in its place.
"""

import contextlib
import glob
import os
import platform
import sys

VARIABLE = "GLIBC_TUNABLES"
SETTINGS = {
    "hugetlb": 1,  # glibc 2.35 and later; older ones pass over it
    "mmap_max": 0,  # large blocks come from the heap too,
    "trim_threshold": 2**40,  # whose end is not returned,
    "arena_max": 1,  # and which is one: those of other threads return their memory at any setting
}
VALUE = ":".join(f"glibc.malloc.{name}={value}" for name, value in SETTINGS.items())
_ACCELERATORS = ("/dev/accel*", "/dev/vfio/[0-9]*", "/dev/nvidia[0-9]*")  # TPU, newer TPU, NVIDIA


def start_again() -> None:
    """Replaces this process by itself with these settings. Does nothing where that would change nothing, where the
    training will not be on a CPU, or where GLIBC_TUNABLES says something already."""
    if VARIABLE in os.environ or not sys.orig_argv or platform.libc_ver()[0] != "glibc" or not _on_cpu():
        return
    os.environ[VARIABLE] = VALUE
    with contextlib.suppress(OSError):  # it then goes on without
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 the command of this process


def _on_cpu() -> bool:
    """Whether JAX will find nothing but the CPU, as far as can be told without importing it."""
    if platforms := os.environ.get("JAX_PLATFORMS"):
        return platforms == "cpu"
    return not any(map(glob.glob, _ACCELERATORS))
