"""Time and memory of `moe-jax fit` by the number of rows:  python -m experiments.benchmarks.law_rows  [ROWS …]

krajewski2024's form with the default flags: 128 starts, 1,000 bootstrap samples. The losses are planted."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from moe_jax import laws
from moe_jax.cli import tables

ROWS = (1_000, 10_000, 100_000)


def main() -> None:
    measured = [measure(rows) for rows in map(int, sys.argv[1:] or ROWS)]
    tables.show(tables.Table((">rows", ">seconds", ">CPU seconds", ">… a 1,000 rows", ">peak MiB"), measured))


def measure(rows: int) -> tuple[str, ...]:
    """A fit in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        runs(rows).to_csv(Path(folder) / "results.csv", index=False)
        began = time.perf_counter()
        command = [sys.executable, "-m", "moe_jax", "fit", "--workdir", folder]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds, cpu = time.perf_counter() - began, used.ru_utime + used.ru_stime
    if status:
        raise SystemExit(f"the fit of {rows:,} rows ended with {os.waitstatus_to_exitcode(status)}")
    return f"{rows:,}", f"{seconds:.0f}", f"{cpu:.0f}", f"{1e3 * cpu / rows:.1f}", f"{used.ru_maxrss / 1024:.0f}"


def runs(rows: int) -> pd.DataFrame:
    """Runs spread at random over the ranges of the paper's Table 3, losses by its law with the scatter it leaves."""
    rng = np.random.default_rng(0)
    table = {
        "n_total_nonemb": np.exp(rng.uniform(np.log(1e8), np.log(2e9), rows)).round(),
        "tokens": np.exp(rng.uniform(np.log(1e10), np.log(7e10), rows)).round(),
        "granularity": rng.choice([1, 2, 4, 8, 16], rows),
    }
    loss = laws.published("krajewski2024").loss_at(table)
    return pd.DataFrame({**table, "eval_loss": loss + 0.015 * rng.standard_normal(rows)})


if __name__ == "__main__":
    main()
