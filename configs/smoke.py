"""A grid of 27 runs that a laptop's CPU trains in minutes: 3 N × 3 D × 3 G, on the source of Python's standard library.

    moe-jax prepare --config=configs/smoke.py
    moe-jax sweep   --config=configs/smoke.py --workdir=runs/smoke
    moe-jax collect --workdir=runs/smoke && moe-jax fit --workdir=runs/smoke && moe-jax report --workdir=runs/smoke

Hardware: 2 CPU cores; two to five minutes for the sweep. Result: held-out losses fall from 2.86 to 2.03 nats a
byte, with N and with D in all neighbouring pairs; G changes them by less than another machine does. More in
experiments/smoke/README.md. The variant `configs/smoke.py:tiny` is for tests: 8 runs of a few steps, in seconds.
`configs/smoke.py:hf` is one model of a form that Hugging Face's transformers has (Qwen3-MoE) with 1,024 positions and
a SentencePiece vocabulary, for docs/howto/evaluate.md.
"""

from configs import common
from moe_jax.config import grid


def get_config(arg=None):
    variant = common.choose(arg, "tiny", "hf")
    config = common.get_config()
    if variant == "hf":
        return transformers_form(config)
    config.model.d_model = 32
    config.moe.capacity_factor = 2.0  # a routing group has 64 tokens: so few that 1.25 drops a quarter
    config.moe.load_balance_loss_weight = 0.1  # a run is a few hundred steps; 0.01 balances too late
    config.train.tokens = 192_000
    config.train.batch_sequences = 8
    config.train.log_every_steps = 10
    config.optim.learning_rate = 5e-3  # for all runs, as in krajewski2024
    config.eval.sequences = 3000  # nearly all: the eight held-out files differ much
    if variant == "tiny":
        config.model.d_model = 16
        config.model.n_layers = 1
        config.train.tokens = 8_192
        config.train.loss_average_steps = 4
        config.train.log_every_steps = 1
        config.eval.sequences = 16
        config.data.sequence_length = 32
    return config


def transformers_form(config):
    config.model.update(
        d_model=128, n_layers=2, n_heads=4, n_kv_heads=2, activation="swiglu", norm="rmsnorm", positions="rope",
        qk_norm="head", init_scale=1.0,
    )  # fmt: skip
    config.moe.update(expansion_rate=8.0, granularity=2.0, softmax="after_top_k")
    config.data.update(store="stores/python_stdlib_bpe4096", vocabulary="bpe:4096", sequence_length=1024)
    config.train.update(tokens=262_144, batch_sequences=8, loss_average_steps=8)  # 32 steps
    config.optim.learning_rate = 3e-3
    config.eval.sequences = 48  # of the 62 that the held-out files have
    return config


def get_grid(config, arg=None):
    variant = common.choose(arg, "tiny", "hf")
    if variant == "hf":
        return grid.axis("moe.granularity", [2])
    if variant == "tiny":
        widths, tokens, granularities = [8, 16], [2_048, 4_096], [1, 2]
    else:
        widths, tokens, granularities = [16, 32, 64], [96_000, 192_000, 384_000], [1, 2, 4]
    return grid.product(
        grid.axis("model.d_model", widths),
        grid.axis("train.tokens", tokens),
        grid.axis("moe.granularity", granularities),
    )
