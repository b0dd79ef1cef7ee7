"""The grids of "Scaling Laws for Fine-Grained Mixture of Experts" (Krajewski et al. 2024, arXiv 2402.07871).

    configs/krajewski2024.py:table3   78 runs, E = 64, Expert Choice: the runs behind the paper's law
    configs/krajewski2024.py:table4   22 dense runs
    configs/krajewski2024.py:table7   68 runs, E = 16
    configs/krajewski2024.py:short    52 runs of 4B and 8B tokens, E = 64, which the paper leaves out
    configs/krajewski2024.py:wsd      table3 with a stable rate and a decay (ours), so that runs share trunks
    configs/krajewski2024.py:smoke    8 small runs like table3's, on the source of Python's standard library

    moe-jax plan    --config=configs/krajewski2024.py:table3
    moe-jax prepare --config=configs/krajewski2024.py:table3 --config.data.vocabulary=gpt2/tokenizer.json
    moe-jax sweep   --config=configs/krajewski2024.py:smoke --workdir=runs/krajewski2024-smoke

Hardware: smoke took 67 s on 2 busy CPU cores with --jobs=2. The others are for TPU slices; `moe-jax plan
--topology=v5e:4x4` prints a lower bound of their hours. Data: C4 (en) with GPT-2's tokenizer, whose tokenizer.json you
bring.

Cost of table3 by the paper's own formula: 3.16e12 tokens, 4.04e20 FLOPs (and about as much again for the unembedding,
which the formula leaves out); of wsd, the same 78 runs, 2.10e12 tokens and 2.85e20 FLOPs; of short 3.1e11 and 4.9e19.

Result: smoke's held-out losses are 3.24 to 2.68 nats a byte. The paper's law of table3 is L = c + (g / G^γ + a) / N^α +
b / D^β with c = 0.47, g = 2.1, γ = 0.58, a = 18.1, α = 0.115, b = 30.8, β = 0.147.

Where the values come from: the paper's appendix A and tables 3, 4 and 7; marked (code) where the paper is silent and
the authors' public training code says it, (ours) where both are silent. The model is presets.krajewski2024. The short
runs are those whose losses can be read off plots in the authors' public git history; they lie above the law, and the
paper does not fit them. wsd's decay, linear to 0 over the last 20%, is that of the authors' next paper (arXiv
2502.05172).
"""

from configs import common, presets
from moe_jax.config import grid

# (d_model, n_layers), named by the paper's N_act in millions; heads of 64.
SHAPES = {3: (256, 4), 6: (256, 8), 7: (384, 4), 13: (512, 4), 25: (512, 8), 49: (640, 10), 85: (768, 12)}
# Tokens by the name that the tables use, in billions: whole steps of 2,048 sequences of 256 tokens.
STEPS = {4: 7_812, 8: 15_625, 16: 31_250, 24: 46_875, 33: 62_500, 66: 125_000, 130: 250_000}
ALL_G = (1, 2, 4, 8, 16)
VARIANTS = ("table3", "table4", "table7", "short", "wsd", "smoke")


def get_config(arg=None):
    variant = common.choose(arg, *VARIANTS)
    config = common.get_config()
    presets.krajewski2024(config)
    config.model.update(d_model=256, n_layers=4, n_heads=4, vocab_size=50_257)  # GPT-2's vocabulary
    if variant == "table7":
        config.moe.expansion_rate = 16.0
    config.data.update(
        store="stores/c4_en_gpt2",
        mixture="c4_en",
        vocabulary="gpt2/tokenizer.json",
        sequence_length=256,
        windows="random",  # (code) a random window of documents joined by the end-of-document token
    )
    config.train.update(
        tokens=STEPS[16] * 2048 * 256,
        batch_sequences=2048,  # 0.5M tokens
        microbatches=8,  # (code) of 256 sequences
        loss_average_steps=1000,
        log_every_steps=100,
    )
    config.optim.update(
        learning_rate=2e-4,  # of every run
        betas=(0.9, 0.999),  # (code) torch's defaults
        weight_decay=0.1,
        clip_norm=0.5,  # (code)
        warmup_fraction=0.01,
        final_fraction=0.1,
    )
    config.eval.sequences = 2048  # (ours) the paper fits the training loss
    if variant == "wsd":
        config.optim.update(
            schedule="wsd",
            warmup_fraction=None,
            warmup_tokens=STEPS[16] * 2048 * 256 // 100,  # (ours) 1% of the shortest D, for all
            decay_fraction=0.2,
            final_fraction=0.0,
        )
    if variant == "smoke":
        _shrink(config)
    return config


def _shrink(config):
    """The same model, small enough for a CPU: E = 8, groups of 16 sequences, bytes."""
    config.model.update(d_model=16, n_layers=2, n_heads=2, vocab_size=None, compute_dtype="float32")
    config.moe.update(expansion_rate=8.0, group_sequences=16)
    config.data.update(
        store="stores/python_stdlib_byte", mixture="python_stdlib", vocabulary="byte", sequence_length=64
    )
    config.train.update(tokens=96_000, batch_sequences=16, microbatches=1, loss_average_steps=50, log_every_steps=10)
    config.optim.update(learning_rate=5e-3, warmup_fraction=0.1)
    config.eval.sequences = 512


def get_grid(config, arg=None):
    variant = common.choose(arg, *VARIANTS)
    if variant == "table4":
        cells = [_cells(size, [16, 24, 33, 66], None) for size in (3, 6, 13, 25, 49)] + [_cells(85, [16, 33], None)]
    elif variant == "table7":
        cells = [_cells(size, [8, 16, 33], ALL_G) for size in (3, 6, 13, 25)]
        cells += [_cells(13, [66], (1, 2, 4)), _cells(49, [8], ALL_G)]
    elif variant == "short":
        cells = [_cells(size, [4], (1, 2, 4, 8) if size in (7, 85) else ALL_G) for size in (3, 7, 13, 25, 49, 85)]
        cells += [_cells(size, [8], (1, 2, 4, 8) if size == 13 else ALL_G) for size in (3, 7, 13, 25, 49)]
    elif variant == "smoke":
        axes = (
            grid.axis("model.d_model", [16, 32]),
            grid.axis("train.tokens", [48_000, 96_000]),
            grid.axis("moe.granularity", [1, 2]),
        )
        cells = [grid.product(*axes)]
    else:
        cells = [_cells(size, [16, 33, 66], ALL_G) for size in (3, 7, 13)]
        cells += [_cells(13, [130], (1, 2, 4))]
        cells += [_cells(25, [16, 33], ALL_G), _cells(25, [66], (1, 2, 4, 8))]
        cells += [_cells(49, [16, 33], ALL_G), _cells(49, [66], (1, 2, 4))]
        cells += [_cells(85, [33], (1, 2, 4))]
    return grid.chain(*cells)


def _cells(size, billions, granularities):
    """One shape at these D and G; no G: dense."""
    d_model, n_layers = SHAPES[size]
    shape = [{"model.d_model": d_model, "model.n_layers": n_layers, "model.n_heads": d_model // 64}]
    tokens = grid.axis("train.tokens", [STEPS[b] * 2048 * 256 for b in billions])
    return grid.product(
        shape, tokens, [{"moe": None}] if granularities is None else grid.axis("moe.granularity", granularities)
    )
