"""Seconds that a verb of moe-jax takes, in a process of its own."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

Seconds = tuple[float, float]  # on the clock, of the processor
ROOT = Path(__file__).resolve().parents[2]


def seconds_of(*argv: str, checkout: Path = ROOT, **environment: str) -> Seconds:
    """Runs `moe-jax ARGV` of a checkout on the CPU; its children's processor seconds count. Ends this process with what
    it printed if it fails."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(checkout)} | environment
    with tempfile.TemporaryFile() as out:
        began, before = time.perf_counter(), _processor()
        done = subprocess.run([sys.executable, "-m", "moe_jax", *argv], cwd=checkout, stdout=out, stderr=out, env=env)
        taken = time.perf_counter() - began, _processor() - before
        if done.returncode:
            out.seek(0)
            raise SystemExit(out.read().decode(errors="replace")[-2000:])
    return taken


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
