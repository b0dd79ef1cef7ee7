"""The machine that a benchmark ran on: ratios differ from one to the next."""

import os
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")  # Linux's


def processor() -> str:
    """The processor's name and how many cores this process may use."""
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.exists() else []
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown processor")
    return f"{name}, {len(os.sched_getaffinity(0))} cores"
