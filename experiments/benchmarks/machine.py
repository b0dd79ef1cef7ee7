"""The machine and the packages that a benchmark ran with: ratios differ from one machine to the next."""

import importlib.metadata
import os
import platform
from pathlib import Path

_CPUINFO, _MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")  # Linux's
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "torch", "transformers")


def processor() -> str:
    """The processor's name and how many cores this process may use."""
    return f"{_field(_CPUINFO, 'model name') or 'unknown processor'}, {len(os.sched_getaffinity(0))} cores"


def describe() -> dict[str, str]:
    """Processor, memory, operating system, and the versions of Python and of the packages that are installed."""
    installed = {}
    for package in _PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # the peer is an extra
            continue
    kibibytes = int((_field(_MEMINFO, "MemTotal") or "0 kB").split()[0])
    return {
        "processor": processor(),
        "memory": f"{kibibytes / 2**20:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    } | installed


def _field(path: Path, name: str) -> str | None:
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
