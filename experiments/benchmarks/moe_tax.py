"""What experts cost: a train step of krajewski2024's 64×3M model over that of its dense twin, on two CPU cores.

    python -m experiments.benchmarks.moe_tax          (about eight minutes, 14 GiB of memory for 4,096 experts)

The model is d 256, 4 blocks, ReLU, with Expert Choice replaced by token choice at capacity factor 1.25, float32 and a
small vocabulary; its twin is the dense model of the same active width. Two tables: E = 64 and G = 1, 4, 16; and G = 16
with 64 to 4,096 experts. Step and twin run in turn; a ratio is the median over rounds.

More experts of the same width do the same arithmetic, so a step may grow by two things alone: the router's three
products, at the rate that the cores reach in a large product, and 32 bytes for each further parameter, at the bandwidth
that they reach when they add two arrays. Those bytes are AdamW's: the parameter and its two moments read and written,
and the gradient written and read. `beyond` is what the step takes beyond the first row's and these two.
"""

import argparse
import functools
import statistics
import time
from typing import Any

import numpy as np

from experiments.benchmarks import results
from experiments.benchmarks.machine import processor
from moe_jax.cli import malloc
from moe_jax.config import config_file, counts
from moe_jax.config.schema import Config, MeshConfig

VOCABULARY, SEQUENCES, POSITIONS = 1024, 16, 256
GRANULARITIES = [(64, 1), (64, 4), (64, 16)]  # (E, G)
EXPERTS = [(4, 16), (16, 16), (64, 16), (256, 16)]
PARAMETER_BYTES = 32
SIDE, LENGTH = 2048, 2**26  # of the matrices whose product, and of the arrays whose sum, measure the machine
FORMATS = {
    "experts × k": "", "dispatch": "", "parameters, M": ",.1f", "twin ms": ",.0f", "step ms": ",.0f", "÷ twin": ".2f",
    "router ms": ",.0f", "32 B a parameter, ms": ",.0f", "beyond, ms": "+,.0f", "dropped": ".1%",
}  # fmt: skip


def main() -> None:
    flags = arguments()
    malloc.start_again()  # as moe-jax train does
    flops, bandwidth = product_rate(), sum_bandwidth()
    rates = f"{flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s; {processor()}"
    measure = functools.cache(row)  # 1,024 × 16 stands in both tables
    for title, shapes in (("E = 64", GRANULARITIES), ("G = 16, the same active width", EXPERTS)):
        rows = [dict(measure(*shape, d, flags.rounds)) for d in flags.dispatch.split(",") for shape in shapes]
        results.show(results.Results(f"{title}; {rates}", FORMATS, with_bounds(rows, flops, bandwidth)), flags.out)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dispatch", default="slots,dropless", help="comma-separated")
    results.add_flag(parser)
    return parser.parse_args()


def config_of(expansion_rate: float, granularity: float, dispatch: str) -> Config:
    """64×3M's config; `dense` is the dispatch of the twin."""
    overrides = {
        "model.vocab_size": VOCABULARY, "model.compute_dtype": "float32", "train.microbatches": 1,
        "train.batch_sequences": SEQUENCES, "train.tokens": 10_000 * SEQUENCES * POSITIONS,
        "data.sequence_length": POSITIONS,
    }  # fmt: skip
    if dispatch == "dense":
        overrides["moe"] = None
    else:
        overrides |= {
            "moe.router": "token_choice", "moe.softmax": "before_top_k", "moe.group_sequences": SEQUENCES,
            "moe.capacity_factor": 1.25, "moe.load_balance_loss_weight": 0.01,
            "moe.expansion_rate": float(expansion_rate), "moe.granularity": float(granularity),
            "moe.dispatch": dispatch,
        }  # fmt: skip
    flags = [f"--config.{name}={value}" for name, value in overrides.items()]
    return config_file.load(["--config=configs/krajewski2024.py:table3", *flags]).config


def row(expansion_rate: float, granularity: float, dispatch: str, rounds: int) -> dict[str, Any]:
    """A row of the table, without its bounds."""
    config = config_of(expansion_rate, granularity, dispatch)
    steps = [Steps(config_of(1, 1, "dense")), Steps(config)]
    seconds = [[step.seconds() for step in steps] for _ in range(rounds)]
    return {
        "experts × k": f"{config.moe.n_experts:,} × {config.moe.top_k}", "dispatch": dispatch,
        "parameters, M": counts.count_parameters(config, VOCABULARY).n_total / 1e6,
        "twin ms": 1e3 * statistics.median(twin for twin, _ in seconds),
        "step ms": 1e3 * statistics.median(own for _, own in seconds),
        "÷ twin": statistics.median(own / twin for twin, own in seconds),
        "dropped": steps[1].metrics.get("dropped_fraction"), "config": config,
    }  # fmt: skip


def with_bounds(rows: list[dict[str, Any]], flops: float, bandwidth: float) -> list[dict[str, Any]]:
    """The rows with what more experts may cost, in milliseconds, and what they cost beyond that."""
    finished, first = [], {}
    for row in rows:
        config = row.pop("config")
        tokens = SEQUENCES * POSITIONS * config.model.n_layers
        row["router ms"] = 1e3 * 3 * 2 * tokens * config.model.d_model * config.moe.n_experts / flops
        row["32 B a parameter, ms"] = 1e3 * PARAMETER_BYTES * 1e6 * row["parameters, M"] / bandwidth
        own = row["step ms"] - row["router ms"] - row["32 B a parameter, ms"]
        finished.append(row | {"beyond, ms": own - first.setdefault(row["dispatch"], own)})
    return finished


class Steps:
    """A model in training; compiled and warmed up."""

    def __init__(self, config: Config):
        import jax

        from moe_jax.model import sharding
        from moe_jax.training import optimizer
        from moe_jax.training.step import Trainer

        layout = sharding.Layout(sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))
        self._trainer = Trainer(config, VOCABULARY, layout)
        self._state, self._schedule = self._trainer.init(0), optimizer.schedule_of(config)
        self._random, self.metrics = np.random.default_rng(0), {}
        for _ in range(2):
            self.seconds()

    def seconds(self) -> float:
        """Trains one step on random tokens."""
        import jax

        windows = self._random.integers(0, VOCABULARY, (1, SEQUENCES, POSITIONS + 1)).astype(np.int32)
        windows = jax.device_put(windows, self._trainer.batch_sharding)
        began = time.perf_counter()
        self._state, metrics = self._trainer.step(self._state, windows, self._schedule)
        jax.block_until_ready(self._state)
        taken = time.perf_counter() - began
        self.metrics = {name: float(value) for name, value in metrics.items() if value.ndim == 0}
        return taken


def product_rate() -> float:
    """FLOP/s of a product of two large matrices."""
    import jax

    square = jax.numpy.ones((SIDE, SIDE))
    return 2 * SIDE**3 / least_seconds(jax.jit(jax.numpy.matmul), square, square)


def sum_bandwidth() -> float:
    """Bytes a second of adding two large arrays in place."""
    import jax

    a, b = (jax.numpy.full(LENGTH, value, "float32") for value in (1.0, 2.0))
    added = jax.jit(jax.numpy.add, donate_argnums=0)
    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        a = jax.block_until_ready(added(a, b))
        seconds.append(time.perf_counter() - began)
    return 3 * 4 * LENGTH / min(seconds)


def least_seconds(function, *arguments) -> float:
    import jax

    seconds = []
    for _ in range(8):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - began)
    return min(seconds)


if __name__ == "__main__":
    main()
