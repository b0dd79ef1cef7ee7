"""Where the wall time of `moe-jax sweep` goes, on a part of the smoke grid:

    python -m experiments.benchmarks.sweep [--widths=16] [--jobs=2] [--rounds=1] [--against=CHECKOUT]

A round is a first sweep, whose cache of compiled programs is empty, and the same sweep in another folder, whose cache
is full. With `--against` another checkout does the same in turn. Seconds are those of all jobs that run at a time: of
two, twice the wall time. "start" is a slot's time before each attempt (Python, imports, the end of the process before);
"other" is what an attempt does not count; "idle" is a slot's time after its last attempt. `--widths=16,32,64` is the
whole grid, 27 runs; 16 alone, 9 runs, takes about a minute and a half a round and checkout on two cores.
"""

import argparse
import itertools
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from experiments.benchmarks import results, verbs
from experiments.benchmarks.machine import processor

CONFIG = """
from configs import smoke


def get_config(arg=None):
    return smoke.get_config()


def get_grid(config, arg=None):
    return [cell for cell in smoke.get_grid(config) if cell.overrides["model.d_model"] in WIDTHS]
"""
COUNTED = ("compile", "train", "eval", "checkpoint", "data")
PARTS = ("start", *COUNTED, "other", "idle")
FORMATS = {"sweep": "", "wall s": ".1f", "CPU s": ".1f"} | {f"{part} s": ".1f" for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", default="16", help="d_model of the runs, of 16,32,64 (default 16: 9 runs)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time (default 2)")
    parser.add_argument("--rounds", type=int, default=1, help="default 1")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout, which does the same")
    results.add_flag(parser)
    flags = parser.parse_args()
    checkouts = {"this checkout": verbs.ROOT}
    if flags.against:
        checkouts["the other"] = flags.against.resolve()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(Path(scratch), checkouts, flags)
    results.show(
        results.Results(f"d_model {flags.widths}, {flags.jobs} at a time; {processor()}", FORMATS, rows), flags.out
    )
    for what in ("first", "again") if flags.against else ():
        own, other = ([row["wall s"] for row in rows if row["sweep"] == f"{name}, {what}"] for name in checkouts)
        ratio = statistics.median(a / b for a, b in zip(own, other, strict=True))
        print(f"{what}: {ratio:.2f} of the other checkout's wall time")


def measure(scratch: Path, checkouts: dict[str, Path], flags: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each sweep, in their order."""
    store, config, rows = f"{scratch}/store", scratch / "part.py", []
    verbs.seconds_of("prepare", "--config=configs/smoke.py", f"--store={store}")
    config.write_text(CONFIG.replace("WIDTHS", f"({flags.widths},)"))
    for i, (name, checkout) in itertools.product(range(flags.rounds), checkouts.items()):
        for what in ("first", "again"):
            work = scratch / f"{name} {what} {i}"
            wall, processor_seconds = verbs.seconds_of(
                "sweep", f"--config={config}", f"--config.data.store={store}", f"--workdir={work}",
                f"--jobs={flags.jobs}", checkout=checkout, JAX_COMPILATION_CACHE_DIR=f"{scratch}/cache {name} {i}",
            )  # fmt: skip
            parts = {f"{part} s": seconds for part, seconds in where_it_went(work, wall, flags.jobs).items()}
            rows.append({"sweep": f"{name}, {what}", "wall s": wall, "CPU s": processor_seconds} | parts)
    return rows


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
