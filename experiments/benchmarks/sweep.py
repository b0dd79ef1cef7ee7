"""Where the wall time of `moe-jax sweep` goes, on a part of the smoke grid:

    python -m experiments.benchmarks.sweep [--widths=16] [--jobs=2] [--rounds=1] [--against=CHECKOUT]

A round is a first sweep, whose cache of compiled programs is empty, and the same sweep in another folder, whose cache
is full. With `--against` another checkout does the same in turn. Seconds are those of all jobs that run at a time: of
two, twice the wall time. "start" is a slot's time before each attempt (Python, imports, the end of the process before);
"other" is what an attempt does not count; "idle" is a slot's time after its last attempt. `--widths=16,32,64` is the
whole grid, 27 runs; 16 alone, 9 runs, takes about a minute and a half a round and checkout on two cores.
"""

import argparse
import collections
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiments.benchmarks.machine import processor

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
from configs import smoke


def get_config(arg=None):
    return smoke.get_config()


def get_grid(config, arg=None):
    return [cell for cell in smoke.get_grid(config) if cell.overrides["model.d_model"] in WIDTHS]
"""
COUNTED = ("compile", "train", "eval", "checkpoint", "data")
PARTS = ("start", *COUNTED, "other", "idle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="16", help="d_model of the runs, of 16,32,64 (default 16: 9 runs)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--rounds", type=int, default=1, help="default 1")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout, which does the same")
    flags = parser.parse_args()
    checkouts = {"this checkout": ROOT} | ({"the other": flags.against.resolve()} if flags.against else {})
    table = Table("sweep", "wall s", "CPU s", *(f"{part} s" for part in PARTS), title=processor())
    walls = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as scratch:
        store = f"{scratch}/store"
        moe_jax(ROOT, scratch, "prepare", "--config=configs/smoke.py", f"--store={store}")
        config = Path(scratch, "part.py")
        config.write_text(CONFIG.replace("WIDTHS", f"({flags.widths},)"))
        for round_number in range(flags.rounds):
            for name, checkout in checkouts.items():
                cache = f"{scratch}/cache {name} {round_number}"
                for what in ("first", "again"):
                    work = Path(scratch, f"{name} {what} {round_number}")
                    wall, cpu = moe_jax(
                        checkout, cache, "sweep", f"--config={config}", f"--config.data.store={store}",
                        f"--workdir={work}", f"--jobs={flags.jobs}",
                    )  # fmt: skip
                    walls[name, what].append(wall)
                    parts = where_it_went(work, wall, flags.jobs)
                    row = (f"{parts[part]:.1f}" for part in PARTS)
                    table.add_row(f"{name}, {what}", f"{wall:.1f}", f"{cpu:.1f}", *row)
    console = Console(width=140)
    console.print(table)
    for what in ("first", "again") if flags.against else ():
        pairs = zip(walls["this checkout", what], walls["the other", what], strict=True)
        console.print(f"{what}: {statistics.median(a / b for a, b in pairs):.2f} of the other checkout's wall time")


def moe_jax(checkout: Path, cache: str, *argv: str) -> tuple[float, float]:
    """The seconds of a verb of a checkout, on the clock and of the processor, its children's too."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(checkout), "XDG_CACHE_HOME": cache}
    began, before = time.perf_counter(), cpu_of_children()
    done = subprocess.run(
        [sys.executable, "-m", "moe_jax", *argv], cwd=checkout, env=environment, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return time.perf_counter() - began, cpu_of_children() - before


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def where_it_went(work: Path, wall: float, jobs: int) -> dict[str, float]:
    """Seconds of each of PARTS; they add up to `jobs` times the wall time."""
    parts = dict.fromkeys(PARTS, 0.0)
    attempts = []
    for path in work.glob("runs/*/result.json"):
        for name, seconds in json.loads(path.read_text())["times"].items():
            parts[name] += seconds
        attempt = json.loads((path.parent / "attempts" / "1.json").read_text())
        attempts.append((attempt["began"], attempt["ended"]))
    in_attempts = sum(ended - began for began, ended in attempts)
    parts["other"] = in_attempts - sum(parts[name] for name in COUNTED)
    slots = slot_ends(attempts, jobs)
    parts["idle"] = sum(max(slots) - end for end in slots)
    parts["start"] = jobs * wall - in_attempts - parts["idle"]
    return parts


def slot_ends(attempts: list[tuple[float, float]], jobs: int) -> list[float]:
    """When each of the slots ended its last attempt: an attempt takes the slot that was free last before it."""
    ends = [0.0] * jobs
    for began, ended in sorted(attempts):
        free = [i for i in range(jobs) if ends[i] <= began] or [min(range(jobs), key=ends.__getitem__)]
        ends[max(free, key=ends.__getitem__)] = ended
    used = [end for end in ends if end]
    return used + [min(began for began, _ in attempts)] * (jobs - len(used))


if __name__ == "__main__":
    main()
