"""The benchmarks of one CPU in half an hour: their tables, and one JSON file with the machine and the versions.

    make bench                                                       (two cores: under 30 minutes; 14 GiB of memory)
    python -m experiments.benchmarks.bench --out=build/bench.json --only=laws,train_step

Each benchmark is a process of its own, one after the other. The file is written after each, so that what was measured
before a stop stays; `--only` measures some again and leaves the others as they are. `bench_page.py` puts the tables
into README.md.
"""

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.benchmarks import machine, results
from moe_jax import provenance

BENCHMARKS = {
    "train_step": ["--rounds=3"],
    "moe_layer": ["--activation=swiglu", "--repeats=7"],
    "moe_tax": ["--rounds=3"],
    "sweep": [],
    "laws": [],
    "many_runs": ["--rounds=1"],
}


def main() -> None:
    flags = arguments()
    names = flags.only.split(",")
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise SystemExit(
            f"--only={flags.only}: there is no benchmark {unknown[0]}; give some of {','.join(BENCHMARKS)}"
        )
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    measured = json.loads(flags.out.read_text()) if flags.out.exists() else {}
    failed = []
    for i, name in enumerate(names):
        print(f"-- {i + 1} of {len(names)}: {name}", flush=True)
        found = measure(name)
        if found is None:
            failed.append(name)
        else:
            measured[name] = found
            flags.out.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    print(f"{len(names) - len(failed)} of {len(names)} benchmarks are in {flags.out}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}; the messages stand above")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"))
    parser.add_argument("--only", default=",".join(BENCHMARKS), help="comma-separated")
    return parser.parse_args()


def measure(name: str) -> dict[str, Any] | None:
    """What the file keeps of a benchmark; None if it fails."""
    module = f"experiments.benchmarks.{name}"
    with tempfile.TemporaryDirectory() as folder:
        out, began = Path(folder) / "tables.jsonl", time.monotonic()
        done = subprocess.run([sys.executable, "-m", module, *BENCHMARKS[name], f"--out={out}"])
        if done.returncode or not out.exists():
            return None
        return {
            "command": " ".join(["python", "-m", module, *BENCHMARKS[name]]),
            "date": datetime.date.today().isoformat(),
            "seconds": round(time.monotonic() - began),
            "commit": provenance.git_commit(),
            "machine": machine.describe(),
            "tables": [dataclasses.asdict(table) for table in results.read(out)],
        }


if __name__ == "__main__":
    main()
