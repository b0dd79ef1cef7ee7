"""Time of a whole train step, against Hugging Face transformers' OLMoE on the same machine.

    pip install '.[bench]'
    python -m experiments.benchmarks.train_step                    (two CPU cores: eight minutes)
    python -m experiments.benchmarks.train_step --shapes=small --rounds=3

Ours (`slots` with capacity factor 1.25, `dropless`, and the dense twin of the same active width) and the peer run the
same shapes: SwiGLU, RoPE, QK-norm, RMSNorm, AdamW, gradients clipped by their global norm on both sides, float32. Each
is a process of its own; they take turns, round by round, and a ratio is the median over rounds. The peer has
`experts_implementation="grouped_mm"`, a fused AdamW and its router logits on, and drops nothing.

`limit` is the step's arithmetic (moe_jax/flops.py, without what a capacity above 1 adds) at the rate that the machine's
cores reach in a product of two large matrices, ours or the peer's, whichever is faster, in the same run.
"""

import argparse
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
    """(a row for each of `whats`, with seconds of a step, round by round; FLOP/s of a large product)."""
    workers = [Worker(what, shape) for what in whats]
    steps = {w.what: max(1, round(ROUND_SECONDS / min(w.run(1) for _ in range(2)))) for w in workers}
    seconds, products = {w.what: [] for w in workers}, []
    for _ in range(rounds):
        for w in workers:
            products.append(w.run(0))
            seconds[w.what].append(w.run(steps[w.what]) / steps[w.what])
    for w in workers:
        w.end()
    rows = [w.seen | {"what": w.what, "seconds": seconds[w.what]} for w in workers]
    return rows, 2 * PRODUCT_SIDE**3 / min(products)


def table(shape: Shape, name: str, rows: list[dict[str, Any]], rate: float) -> results.Results:
    """Tokens a second of each row, as ratios to the peer's and to the limit."""
    limit = shape.tokens * rate / shape.flops
    title = (
        f"{name}: {shape}; limit {limit:,.0f} tokens/s ({shape.flops / 1e9:.1f} GFLOP a step at {rate / 1e9:.0f} "
        f"GFLOP/s), capacity {CAPACITY:g}, clipped by the global norm; {processor()}"
    )
    peer = next((row["seconds"] for row in rows if row["what"] == "peer"), None)
    made = []
    for row in rows:
        middle = statistics.median(row["seconds"])
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
