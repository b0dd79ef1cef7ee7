"""How long `status` and `collect` take on sweeps of many finished runs, on this machine's disk or a gs:// folder.

    python experiments/benchmarks/collect.py [--runs 100,1000,10000] [--workdir gs://bucket/folder]

The runs are synthetic (tests/synthetic_sweep.py): files as the trainer leaves them, without checkpoints. `again` is
collect with nothing new; ms/run divides by the runs.
"""

import argparse
import contextlib
import io
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from etils import epath

from moe_jax import collect, files, results, status, tables
from moe_jax.workdir import Workdir

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests import synthetic_sweep as synthetic

WRITERS = 64


def make(folder: str, n: int) -> Workdir:
    """A sweep of n runs that are all done."""
    work, planned = synthetic.make(folder, [{"seed": seed, "name": f"r{seed}"} for seed in range(n)])

    def finish(run):
        path = work.run_dir(run.name)
        (path.path / "attempts").mkdir(parents=True, exist_ok=True)
        files.write_atomic(path.path / "run.json", json.dumps({"store": {"sha256": synthetic.STORE.sha256}}).encode())
        files.write_atomic(path.path / "attempts" / "1.json", json.dumps({"began": 0.0, "ended": 1.0}).encode())
        path.write_result(synthetic.result_of(run))

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(finish, planned))
    return work


def seconds(function: Callable[..., object], *args: object) -> float:
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        function(*args)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", default="100,1000,10000", help="how many, several by commas")
    parser.add_argument("--workdir", help="where; a folder that is deleted afterwards (default: a temporary one)")
    args = parser.parse_args()
    base = args.workdir or tempfile.mkdtemp()
    rows = []
    try:
        for n in map(int, args.runs.split(",")):
            work = make(f"{base}/{n}", n)
            flags = ["--workdir", str(work.path)]
            first = seconds(collect.main, flags)
            taken = [seconds(status.main, flags), first, seconds(collect.main, flags)]
            assert len(results.read_csv(work.path / "results.csv")) == n
            rows.append([f"{n:,}", *(f"{t:.2f} s" for t in taken), f"{1000 * first / n:.2f}"])
            tables.show(tables.Table([">runs", ">status", ">collect", ">again", ">ms/run"], rows[-1:]))
    finally:
        epath.Path(base).rmtree() if args.workdir else shutil.rmtree(base)
    print()
    tables.show(tables.Table([">runs", ">status", ">collect", ">again", ">ms/run"], rows))


if __name__ == "__main__":
    main()
