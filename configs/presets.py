"""The papers' models by name: each sets `config.model` and `config.moe`; its dense twin is `config.moe = None`.

    moe-jax prepare --config=configs/presets.py:abnar2025
    moe-jax train   --config=configs/presets.py:abnar2025 --workdir=runs/abnar2025
    moe-jax train   --config=configs/presets.py:abnar2025 --config.moe=None --workdir=runs/abnar2025-dense

Hardware: a CPU core, for a model of the size of configs/common.py; 43 to 69 s on a busy one. Result: held-out losses of
2.098 (abnar2025), 2.115 (krajewski2025) and 2.965 (krajewski2024, whose large batches leave 24 steps) nats a byte.

Sizes, data and optimizers of the papers are in the configs of their names. (code) is from the authors' public training
code where the paper is silent; (ours) is our choice where nothing is known.
"""

from configs import common


def krajewski2024(config):
    """Krajewski et al. 2024, appendix A: Expert Choice. With G = 1 and this E, an expert takes 256 / E sequences at a
    position."""
    config.model.update(
        activation="relu",  # (code)
        norm="layernorm",  # (code)
        final_norm=False,  # (code)
        positions="learned",  # (code)
        ff_bias=True,  # (code) of the dense twin; experts have none
        attention_float32=True,  # "attention mechanism and router in high precision"
        init_scale=0.1,
        compute_dtype="bfloat16",
    )
    config.moe.update(
        expansion_rate=64.0,  # E
        router="expert_choice",
        softmax="over_experts",
        group_sequences=256,  # at one position
        load_balance_loss_weight=0.0,
        output_norm=True,  # "crucial for G > 1"
    )


def krajewski2025(config):
    """Krajewski et al. 2025, whose full text we have not seen: "1xFLOPs-G8", 8 of 64 experts. Its "1xFLOPs-G1" is
    granularity 1 with softmax before_top_k; "2xFLOPs" is active_rate 2."""
    config.model.update(
        activation="swiglu",  # (ours) as the sibling paper's Nemotron models, like positions and norm
        norm="rmsnorm",
        positions="rope",
        compute_dtype="bfloat16",  # (ours)
    )
    config.moe.update(
        expansion_rate=8.0,
        granularity=8.0,
        active_rate=1.0,
        router="token_choice",
        softmax="after_top_k",  # "significantly better" at G = 8; impossible at top_k = 1
        load_balance_loss_weight=0.01,  # (ours) Megatron's; that there is one is the paper's, as is the capacity factor
        capacity_factor=1.25,  # (ours)
    )


def abnar2025(config):
    """Abnar et al. 2025, appendix B and table 1, at S = 0.9: a token takes 1 of 10 gated experts of width 4 d / G."""
    config.model.update(
        activation="swiglu",  # "GLU"; (ours) that its gate is SiLU
        norm="layernorm",  # (ours), like positions
        positions="rope",
        qk_norm="head",
        compute_dtype="bfloat16",  # (ours)
    )
    config.moe.update(
        expansion_rate=None,  # E and K are numbers of experts here, which do not grow with G
        active_rate=None,
        granularity=1.0,  # 1 or 2, tuned
        n_experts=10,
        top_k=1,
        router="token_choice",
        softmax="before_top_k",  # (ours)
        load_balance_loss_weight=0.02,  # 0.02 or 0.05, tuned
        router_z_loss_weight=1e-3,
        dispatch="dropless",
    )


PRESETS = {preset.__name__: preset for preset in (krajewski2024, krajewski2025, abnar2025)}


def get_config(arg=None):
    if arg not in PRESETS:
        raise ValueError(f"give a preset's name, configs/presets.py:NAME: {', '.join(PRESETS)}")
    config = common.get_config()
    PRESETS[arg](config)
    config.model.compute_dtype = "float32"  # a CPU has no fast bfloat16
    config.train.batch_sequences = max(config.train.batch_sequences, config.moe.group_sequences)
    config.mesh.update(data=-1, expert=1)  # few device counts divide 10 experts
    return config
