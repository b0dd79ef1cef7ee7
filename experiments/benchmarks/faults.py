"""Kills a tiny training at random moments, resumes it, and compares the outcome with that of an uninterrupted run:

    python -m experiments.benchmarks.faults [--kills=30] [--stops=10] [--seed=0]

The interruptions and the comparison are those of tests/faults.py. Takes about 5 s a kill; ends with 1 on the first
difference.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.faults import CONFIG, ROOT, FaultTest


def environment(scratch: Path) -> dict[str, str]:
    """The environment of the attempts, which share a compilation cache, so that each costs only a few seconds."""
    return os.environ | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(scratch / "xla"), "XLA_FLAGS": ""}


def prepare(scratch: Path) -> str:
    store = scratch / "store"
    subprocess.run(
        [sys.executable, "-m", "moe_jax", "prepare", f"--store={store}"],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    return str(store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--stops", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        config = [*CONFIG, f"--config.data.store={prepare(scratch)}"]
        test = FaultTest(config, scratch, environment(scratch), flags.seed)
        console.print(f"an uninterrupted run: {test.lifetime:.1f} s, {test.operations} file operations")
        table = Table("SIGKILL while", "times")
        for place, times in test.kill(flags.kills).most_common():
            table.add_row(place, str(times))
        console.print(table)
        codes, seconds = test.stop(flags.stops)
        table = Table("SIGTERM's exit code", "times")
        for code, times in codes.most_common():
            table.add_row(str(code), str(times))
        console.print(table)
        if seconds:
            console.print(f"seconds from SIGTERM to the end: median {np.median(seconds):.1f}, max {max(seconds):.1f}")
        console.print("every run equals the uninterrupted one, bit by bit")


if __name__ == "__main__":
    main()
