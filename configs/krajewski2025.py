"""The comparison of "Scaling Fine-Grained MoE Beyond 50B Parameters" (Krajewski et al. 2025, arXiv 2506.02890).

    configs/krajewski2025.py:11b     4 runs: G = 1 and 8 at the FLOPs of dense and at twice those of its feed-forward
    configs/krajewski2025.py:56b     the same with 56B parameters; 17B are active at twice the FLOPs
    configs/krajewski2025.py:order   6 runs of the 11B shape: softmax before and after top-k
    configs/krajewski2025.py:smoke   8 small runs like 11b's, on the source of Python's standard library

    moe-jax plan    --config=configs/krajewski2025.py:11b
    moe-jax prepare --config=configs/krajewski2025.py:11b --module_import=my_tasks
    moe-jax sweep   --config=configs/krajewski2025.py:smoke --workdir=runs/krajewski2025-smoke

Hardware: smoke took 91 s on 2 busy CPU cores with --jobs=2. The others are for TPU slices; `moe-jax plan
--topology=v5p:2x2x4` prints a lower bound of their hours: 58 on 16 v5p chips for 11b's G = 8 at the FLOPs of dense.

Result: smoke's held-out losses are 3.04 to 2.58 nats a byte. Losses of the paper: experiments/krajewski2025/README.md.

We know the paper from its abstract and from summaries, which give the four variants, AdamW with a cosine, a
load-balancing loss, a capacity factor, and 100B tokens as one budget of the 11B models. All else is (ours); (derived)
shapes are those of Nemotron's kind that give the paper's 11B, 56B and 17B parameters. Data: bring a multilingual
mixture with code, and a vocabulary of 256k, as a seqio Task.
"""

from configs import common, presets
from moe_jax.config import grid

SHAPES = {"11b": (2048, 24, 16), "56b": (4096, 32, 32)}  # (derived) d_model, n_layers; n_heads (ours): heads of 128
VARIANTS = (*SHAPES, "order", "smoke")


def get_config(arg=None):
    variant = common.choose(arg, *VARIANTS) or "11b"
    config = common.get_config()
    presets.krajewski2025(config)
    d_model, n_layers, n_heads = SHAPES["56b" if variant == "56b" else "11b"]
    config.model.update(
        d_model=d_model,
        n_layers=n_layers,
        n_heads=n_heads,
        vocab_size=256_000,  # (derived)
        remat="block",
    )
    config.data.update(
        store="stores/multilingual_and_code",
        mixture="multilingual_and_code",  # yours
        vocabulary="multilingual_256k.model",  # yours
        sequence_length=4096,
    )
    config.train.update(
        tokens=100_000_000_000,  # of one 11B comparison; (ours) for the others
        batch_sequences=1024,
        microbatches=4,
        loss_average_steps=1000,
        log_every_steps=100,
    )
    config.optim.update(learning_rate=3e-4, warmup_fraction=0.01)
    config.eval.sequences = 1024
    config.mesh.update(data=-1, expert=8)
    if variant == "smoke":
        config.model.update(d_model=32, n_layers=2, n_heads=2, vocab_size=None, compute_dtype="float32", remat="none")
        config.data.update(
            store="stores/python_stdlib_byte", mixture="python_stdlib", vocabulary="byte", sequence_length=64
        )
        config.train.update(
            tokens=96_000, batch_sequences=16, microbatches=1, loss_average_steps=50, log_every_steps=10
        )
        config.moe.update(load_balance_loss_weight=0.1, capacity_factor=2.0)  # few steps and short groups
        config.optim.update(learning_rate=5e-3, warmup_fraction=0.1)
        config.eval.sequences = 512
        config.mesh.update(data=1, expert=-1)
    return config


def get_grid(config, arg=None):
    variant = common.choose(arg, *VARIANTS)
    before, after = "before_top_k", "after_top_k"
    if variant == "order":
        return [
            grid.Cell(_layer(G, K, softmax), name=f"g{G}-k{K}-{softmax.replace('_', '-')}")
            for G, K in ((8, 1), (1, 2), (8, 2))
            for softmax in (before, after)
        ]
    # A softmax after the top 1 would teach the router nothing.
    layers = [_layer(G, K, after if K * G > 1 else before) for K in (1, 2) for G in (1, 8)]
    return grid.product(grid.axis("train.tokens", [48_000, 96_000]), layers) if variant == "smoke" else layers


def _layer(granularity, active_rate, softmax):
    """8 G experts of width d_ff / G; a token takes K G of them."""
    return {"moe.granularity": granularity, "moe.active_rate": active_rate, "moe.softmax": softmax}
