"""The IsoFLOP surfaces of "Parameters vs FLOPs: Scaling Laws for Optimal Sparsity for MoE LMs" (Abnar et al. 2025).

    configs/abnar2025.py:1e20    every N and sparsity S at 1e20 FLOPs; also 3e19, 6e19, 3e20, 1e21, or all budgets: all
    configs/abnar2025.py:smoke   8 small runs like those, at 3e10 FLOPs, on the source of Python's standard library

    moe-jax plan    --config=configs/abnar2025.py:1e20
    moe-jax prepare --config=configs/abnar2025.py:1e20 --module_import=my_tasks
    moe-jax sweep   --config=configs/abnar2025.py:smoke --workdir=runs/abnar2025-smoke

Hardware: smoke took 113 s on 2 busy CPU cores with --jobs=2. The others are for TPU slices; `moe-jax plan
--topology=v5e:4x4` prints a lower bound of their hours.

Result: smoke's held-out losses are 2.62 to 2.27 nats a byte. By the paper's law, the loss at one budget falls with S,
and the best N grows.

arXiv 2501.12370: budgets, sparsities, model, optimizer and batch are the paper's (section 2, appendices B and C); sizes
are (ours), as the paper's are not in the text that we have. Learning rate, warm-up, load-balancing factor and
granularity were tuned for each run among the values that are named below and in presets.abnar2025. Data: RedPajama V1
with GPT-NeoX's tokenizer, both yours to bring.
"""

from configs import common, presets
from moe_jax.config import grid

BUDGETS = ("1e20", "3e19", "6e19", "3e20", "1e21")
# Percent that is not active -> (n_experts, top_k); S is the paper's; the numbers of experts that give it are (ours).
SPARSITIES = {0: None, 25: (4, 3), 50: (2, 1), 75: (4, 1), 90: (10, 1), 95: (20, 1), 98: (50, 1)}
SHAPES = ((512, 8), (768, 12), (1024, 16), (1536, 20), (2048, 24))  # (ours) d_model, n_layers; heads of 64
SMOKE_FLOPS = 3e10
DATA_TOKENS = 1.2e12  # RedPajama V1
VARIANTS = (*BUDGETS, "all", "smoke")


def get_config(arg=None):
    variant = common.choose(arg, *VARIANTS)
    config = common.get_config()
    presets.abnar2025(config)
    config.model.update(d_model=512, n_layers=8, n_heads=8, vocab_size=50_432, remat="block")
    config.data.update(
        store="stores/redpajama_v1_neox",
        mixture="redpajama_v1",  # yours
        vocabulary="gpt-neox/tokenizer.json",
        sequence_length=2048,
    )
    config.train.update(
        batch_sequences=1024,
        microbatches=4,  # (ours)
        loss_average_steps=1000,
        log_every_steps=100,
    )
    config.optim.update(
        learning_rate=2e-3,  # 3e-3, 2e-3 or 1e-3, tuned
        betas=(0.9, 0.95),
        eps=1e-8,
        weight_decay=1e-5,
        weight_decay_by_lr=False,  # "scale-free"
        warmup_fraction=0.05,  # 2, 5 or 10%, tuned
    )
    config.eval.sequences = 1024  # (ours)
    config.mesh.update(data=-1, expert=1)  # few device counts divide all numbers of experts
    if variant == "smoke":
        config.model.update(d_model=16, n_layers=1, n_heads=2, vocab_size=259, compute_dtype="float32", remat="none")
        config.data.update(
            store="stores/python_stdlib_byte", mixture="python_stdlib", vocabulary="byte", sequence_length=64
        )
        config.train.update(batch_sequences=16, microbatches=1, loss_average_steps=50, log_every_steps=10)
        config.optim.update(learning_rate=5e-3, warmup_fraction=0.1)
        config.eval.sequences = 512
    return config


def get_grid(config, arg=None):
    variant = common.choose(arg, *VARIANTS)
    if variant == "smoke":
        shapes = [_shape(16, 1, 2), _shape(32, 2, 2)]
        sparsities, budgets = [_sparsity(percent) for percent in (0, 50, 75, 90)], [SMOKE_FLOPS]
    else:
        shapes = [_shape(d_model, n_layers, d_model // 64) for d_model, n_layers in SHAPES]
        sparsities = [_sparsity(percent) for percent in SPARSITIES]
        budgets = [float(budget) for budget in (BUDGETS if variant == "all" else [variant or BUDGETS[0]])]
    cells = grid.iso_flop(  # whole steps that spend the budget, by appendix C
        config.to_dict(), grid.product(shapes, sparsities), budgets, "flops_abnar2025", config.model.vocab_size
    )
    enough = "spends its budget only on more tokens than RedPajama V1's 1.2e12"
    return grid.keep_only(cells, lambda cell: cell["train.tokens"] <= DATA_TOKENS, enough)


def _shape(d_model, n_layers, n_heads):
    return {"model.d_model": d_model, "model.n_layers": n_layers, "model.n_heads": n_heads}


def _sparsity(percent):
    if SPARSITIES[percent] is None:
        return {"moe": None}
    n_experts, top_k = SPARSITIES[percent]
    return {"moe.n_experts": n_experts, "moe.top_k": top_k}
