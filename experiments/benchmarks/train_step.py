"""Time of a whole train step, against Hugging Face transformers' OLMoE on the same machine.

    pip install '.[bench]'
    python -m experiments.benchmarks.train_step                    (two CPU cores: eight minutes)
    python -m experiments.benchmarks.train_step --shapes=small --rounds=3

Ours (`slots` with capacity factor 1.25, `dropless`, and the dense twin of the same active width) and the peer run the
same shapes: SwiGLU, RoPE, QK-norm, RMSNorm, AdamW, gradients clipped by their global norm on both sides, float32. Each
is a process of its own; ours and the peer take turns, round by round, two processes at a time (four of `large` do not
fit 24 GiB), and a ratio is the median over rounds. The peer has
`experts_implementation="grouped_mm"`, a fused AdamW and its router logits on, and drops nothing.

`limit` is the step's arithmetic (moe_jax/flops.py, without what a capacity above 1 adds) at the rate that the machine's
cores reach in a product of two large matrices, ours or the peer's, whichever is faster, in the same run.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from typing import Any

from experiments.benchmarks import results
from experiments.benchmarks.machine import processor
from experiments.benchmarks.train_step_shapes import CAPACITY, SHAPES, Shape
from experiments.benchmarks.train_step_workers import PRODUCT_SIDE

ROUND_SECONDS = 2.0  # of each process, about
FORMATS = {
    "step": "", "ms": ".1f", "tokens/s": ",.0f", "÷ peer": ".2f", "of the limit": ".0%", "dropped": ".1%",
    "loss": ".3f",
}  # fmt: skip


def main() -> None:
    args = arguments()
    for name in args.shapes.split(","):
        rows, rate = measure(name, args.rounds, args.what.split(","))
        results.show(table(SHAPES[name], name, rows, rate), args.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=",".join(SHAPES), help="comma-separated")
    parser.add_argument("--what", default="slots,dropless,dense,peer", help="comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    results.add_flag(parser)
    return parser.parse_args()


class Worker:
    """A process of train_step_workers.py."""

    def __init__(self, what: str, shape: str):
        command = [sys.executable, "-m", "experiments.benchmarks.train_step_workers", what, shape]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.what, self.seen = what, self._read()

    def run(self, steps: int) -> float:
        """Seconds of so many steps, or of one large product for 0."""
        with contextlib.suppress(BrokenPipeError):  # `_read` says so
            self._process.stdin.write(f"{steps}\n")
            self._process.stdin.flush()
        said = self._read()
        self.seen |= said
        return said["seconds"]

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"the process of {self.what} has ended; its message stands above")
        return json.loads(line)

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def measure(shape: str, rounds: int, whats: list[str]) -> tuple[list[dict[str, Any]], float]:
    """(a row for each of `whats`, with seconds of a step, round by round; FLOP/s of a large product).

    Each of ours has its own turns with the peer; the peer's row has those of all."""
    rows: dict[str, dict[str, Any]] = {}
    ours, products = [what for what in whats if what != "peer"], []
    pairs = [[what, "peer"] for what in ours] if "peer" in whats and ours else [[what] for what in whats]
    for pair in pairs:
        measured, took = in_turn(shape, rounds, pair)
        products += took
        for row in measured:
            row["peer"] = measured[-1]["seconds"] if "peer" in pair else None
            if before := rows.get(row["what"]):
                row |= {name: before[name] + row[name] for name in ("seconds", "peer")}
            rows[row["what"]] = row
    return [rows[what] for what in whats], 2 * PRODUCT_SIDE**3 / min(products)


def in_turn(shape: str, rounds: int, whats: list[str]) -> tuple[list[dict[str, Any]], list[float]]:
    """(a row for each of `whats`, which take turns; seconds of the large products)."""
    workers = [Worker(what, shape) for what in whats]
    steps = {w.what: max(1, round(ROUND_SECONDS / min(w.run(1) for _ in range(2)))) for w in workers}
    seconds, products = {w.what: [] for w in workers}, []
    for _ in range(rounds):
        for w in workers:
            products.append(w.run(0))
            seconds[w.what].append(w.run(steps[w.what]) / steps[w.what])
    for w in workers:
        w.end()
    return [w.seen | {"what": w.what, "seconds": seconds[w.what]} for w in workers], products


def table(shape: Shape, name: str, rows: list[dict[str, Any]], rate: float) -> results.Results:
    """Tokens a second of each row, as ratios to the peer's and to the limit."""
    limit = shape.tokens * rate / shape.flops
    title = (
        f"{name}: {shape}; limit {limit:,.0f} tokens/s ({shape.flops / 1e9:.1f} GFLOP a step at {rate / 1e9:.0f} "
        f"GFLOP/s), capacity {CAPACITY:g}, clipped by the global norm; {processor()}"
    )
    made = []
    for row in rows:
        middle, peer = statistics.median(row["seconds"]), row["peer"]
        made.append(
            {
                "step": row["what"], "ms": 1e3 * middle, "tokens/s": shape.tokens / middle,
                "÷ peer": statistics.median(p / s for p, s in zip(peer, row["seconds"], strict=True)) if peer else None,
                "of the limit": shape.tokens / middle / limit, "dropped": row.get("dropped_fraction"),
                "loss": row["loss"],
            }
        )  # fmt: skip
    return results.Results(title, FORMATS, made)


if __name__ == "__main__":
    main()
