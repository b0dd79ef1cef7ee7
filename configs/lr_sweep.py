"""Which learning rate? The smallest models of Krajewski et al. 2024 over rates and granularities.

    configs/lr_sweep.py         40 runs: 4 sizes × G 1 and 8 × 5 rates around the paper's 2e-4, of 4.1B tokens each
    configs/lr_sweep.py:rule    8 runs, at a rate that follows from N and E by a rule
    configs/lr_sweep.py:smoke   8 small runs: 2 sizes × 4 rates, on the source of Python's standard library

    moe-jax plan    --config=configs/lr_sweep.py
    moe-jax sweep   --config=configs/lr_sweep.py:smoke --workdir=runs/lr-smoke
    moe-jax sweep   --config=configs/lr_sweep.py:smoke --config.sweep.pack=4 --workdir=runs/lr-packed
    moe-jax collect --workdir=runs/lr-smoke
    moe-jax fit     --workdir=runs/lr-smoke --best-of=learning_rate   # a law needs more cells than smoke has

Hardware: smoke took 34 s on 2 busy CPU cores with --jobs=2, packed 18 s. The others cost 1.6e11 tokens and 1.3e19 FLOPs
by the paper's formula, :rule a fifth of that, on the hardware and data of configs/krajewski2024.py.

Result: smoke's held-out losses are 3.31 to 2.67 nats a byte; the largest rate, 1e-2, is the best for both sizes. The
others have not been run.

The models are those of configs/krajewski2024.py. The paper tunes no rate for its sizes, so part of what it finds about
N, D and G may be due to the rate. The rule is that of its authors' next paper (arXiv 2502.05172): exp(8.39 − 0.81 ln
n_active_nonemb − 0.25 ln E), found for token choice at G = 1. Sizes, rates and D here are (ours).
"""

import math

from configs import common, krajewski2024
from moe_jax.config import grid

RATES = (5e-5, 1e-4, 2e-4, 4e-4, 8e-4)
SIZES = (3, 7, 13, 25)
GRANULARITIES = (1, 8)
VARIANTS = ("rates", "rule", "smoke")


def get_config(arg=None):
    variant = common.choose(arg, *VARIANTS)
    config = krajewski2024.get_config("smoke" if variant == "smoke" else "table3")
    if variant != "smoke":
        config.train.tokens = krajewski2024.STEPS[4] * config.train.batch_sequences * config.data.sequence_length
    return config


def get_grid(config, arg=None):
    variant = common.choose(arg, *VARIANTS)
    if variant == "smoke":
        return grid.product(
            grid.axis("model.d_model", [16, 32]), grid.axis("optim.learning_rate", [1.25e-3, 2.5e-3, 5e-3, 1e-2])
        )
    shapes = grid.prefix("model", [_shape(*krajewski2024.SHAPES[size]) for size in SIZES])
    cells = grid.product(shapes, grid.axis("moe.granularity", GRANULARITIES))
    if variant != "rule":
        return grid.product(cells, grid.axis("optim.learning_rate", RATES))
    return grid.rule(config.to_dict(), cells, "optim.learning_rate", _rate)


def _shape(d_model, n_layers):
    return {"d_model": d_model, "n_layers": n_layers, "n_heads": d_model // 64}


def _rate(config, counts):
    E = config.moe.expansion_rate
    rate = math.exp(8.39 - 0.81 * math.log(counts.n_active_nonemb) - 0.25 * math.log(E))
    return float(f"{rate:.1e}")
