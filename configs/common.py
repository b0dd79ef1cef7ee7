"""Every field of a run, with the values of a small run on a laptop. The other configs start from here.

    moe-jax prepare --config=configs/common.py
    moe-jax train   --config=configs/common.py --workdir=runs/common

Hardware: a CPU core; 31 s on a busy one. Result: held-out loss 2.406 nats a byte.

What a paper fixes is set in that paper's config. Fields that are None follow from others. moe_jax/config/schema.py
checks the values.
"""

from ml_collections import config_dict
from ml_collections.config_dict import placeholder


def get_config(arg=None):
    if arg:
        raise ValueError(f"configs/common.py takes no argument, not {arg!r}")
    config = config_dict.ConfigDict()
    config.seed = 0
    config.tensorboard = False  # also write TensorBoard files, under runs/<name>/tensorboard
    config.wandb = placeholder(str)  # also log to this project of Weights & Biases (pip install 'moe_jax[wandb]')

    config.model = config_dict.create(
        d_model=64,
        n_layers=2,
        n_heads=2,  # divides d_model, unless head_dim is given
        n_kv_heads=placeholder(int),  # None: n_heads; fewer: grouped-query attention
        head_dim=placeholder(int),  # None: d_model / n_heads
        d_ff=placeholder(int),  # None: 4 d_model
        activation="relu",  # relu | gelu | swiglu (three matrices)
        norm="layernorm",  # layernorm | rmsnorm
        norm_eps=1e-5,  # what every norm adds to the mean square
        final_norm=True,  # a norm before the unembedding
        positions="learned",  # learned | rope
        rope_theta=10_000.0,  # rope: base of the frequencies
        qk_norm="none",  # RMSNorm on queries and keys: none | head: of each head | full: of all heads together (OLMoE)
        tied_embeddings=False,  # True: the unembedding is the table of tokens
        ff_bias=False,  # biases in the dense feed-forward; experts never have any
        attention_float32=False,  # scores, softmax and their use in float32, whatever the compute dtype
        init_scale=0.1,  # std = sqrt(init_scale / fan_in), cut at ±2 init_scale (Switch Transformer's reduced scale)
        readout_init_scale=placeholder(float),  # of unembedding and router; None: init_scale
        vocab_size=placeholder(int),  # None: the store's
        compute_dtype="float32",  # float32 | bfloat16; parameters, router, softmax and reductions are float32 always
        # auto: the device's kernel where it has one for the dtype, the heads' width and the length (TPU and NVIDIA GPU,
        # bfloat16), else xla | xla: chunks of queries, on any device | flash: the kernel, or a refusal that says why.
        attention="auto",
        # What the backward pass recomputes: none | block: each block | dispatch: each block, but not its routing.
        remat="none",
        logits_positions=128,  # positions of every sequence whose logits are held at once
    )
    config.moe = config_dict.create(  # config.moe = None: the dense twin
        expansion_rate=8.0,  # E: parameters of the layer's experts / parameters of the dense feed-forward
        granularity=1.0,  # G: d_ff / d_expert
        active_rate=1.0,  # K: active expert width / d_ff; 1 = the FLOPs of dense
        n_experts=placeholder(int),  # None: E G
        top_k=placeholder(int),  # None: K G
        d_expert=placeholder(int),  # None: d_ff / G
        router="token_choice",  # token_choice | expert_choice | module:name, a router of your own
        softmax="before_top_k",  # token_choice: before_top_k | after_top_k; expert_choice: over_experts | over_tokens
        # token_choice: softmax | sigmoid, each expert by itself (DeepSeek-V3; with softmax="before_top_k")
        score="softmax",
        renormalise=False,  # token_choice: the weights of a token's experts are divided by their sum
        routed_scale=1.0,  # token_choice: multiplies these weights
        expert_groups=1,  # token_choice: equal groups of experts; 1: none
        chosen_groups=1,  # a token's experts are in so many groups, those whose two best scores have the largest sums
        group_sequences=1,  # sequences that are routed together; expert_choice: at one position
        capacity_factor=1.25,  # token_choice: slots an expert = ceil(factor · group tokens · top_k / n_experts)
        load_balance_loss_weight=0.01,  # Switch load-balancing loss, 1 when balanced
        router_z_loss_weight=0.0,  # router z-loss
        # token_choice: a bias that only chooses moves by this towards balance; on logits, or on sigmoid scores
        bias_update_rate=0.0,
        output_norm=False,  # a norm on the layer's output (krajewski2024)
        batch_prioritised=False,  # an expert keeps the tokens that want it most, not the first; not causal
        shared_experts=0,  # experts that every token passes, beside its top_k
        shared_gate=False,  # True: their output is multiplied by sigmoid(x · w) (Qwen2-MoE)
        dispatch="slots",  # slots | dropless | dense (the oracle: every expert on every token)
    )
    config.data = config_dict.create(
        store="stores/python_stdlib_byte",  # folder or gs://; made by moe-jax prepare
        mixture="python_stdlib",  # what prepare reads: the source of Python's standard library
        vocabulary="byte",
        sequence_length=64,
        windows="packed",  # packed: side by side, shuffled | random: each anywhere
        mask_documents=False,  # True: attention does not cross document ends (routing groups still do)
        cache=placeholder(str),  # local folder that each host copies the store to and reads it from; None: none
        repeat=False,  # True: more tokens than the store holds are allowed, in reshuffled epochs
    )
    config.train = config_dict.create(
        tokens=384_000,  # D; steps = ceil(tokens / batch tokens)
        batch_sequences=32,  # the global batch, whatever the mesh
        microbatches=1,  # gradient accumulation over equal parts of the batch
        loss_average_steps=50,  # steps that train_loss averages over
        # None: the seed's weights | W/runs/NAME, W/runs/NAME@STEP, a folder of moe-jax import: that checkpoint's
        init_from=placeholder(str),
        init_sha256=placeholder(str),  # None: of what is there; else the digest that it must have (run.json has it)
        log_every_steps=5,
        log_layers=False,  # metrics.jsonl also has every layer's load, dropped fraction, entropy and z
    )
    config.optim = config_dict.create(
        name="adamw",  # adamw | muon (with AdamW for embeddings, router, norms) | lion | adafactor
        learning_rate=3e-3,
        betas=(0.9, 0.95),  # of AdamW or Lion; None for adafactor
        eps=1e-8,  # of AdamW; None for lion and adafactor
        momentum=placeholder(float),  # of Muon; adafactor may have one
        matrix_rate=1.0,  # learning rate of all but embeddings, norms and biases / learning_rate (grid.width_transfer)
        weight_decay=0.1,
        weight_decay_by_lr=True,  # False: decay is not multiplied by the learning rate (abnar2025)
        clip_norm=1.0,  # None: no clipping
        schedule="cosine",  # cosine | wsd (warm-up, stable, decay: runs that differ in D alone share a trunk)
        warmup_tokens=placeholder(int),  # either this (wsd needs it)
        warmup_fraction=0.1,  # or this share of the steps
        decay_fraction=placeholder(float),  # wsd: the last share of the steps, in which the rate falls linearly
        final_fraction=0.1,  # learning rate at the end, as a share of learning_rate
    )
    config.skip_step = config_dict.create(
        # Skips a batch whose gradient norm is more than this many standard deviations above the mean of the norms
        # before it; None: no batch is skipped.
        sigma_factor=placeholder(float),
        rolling_interval=128,  # number of norms in that mean, at least 8
    )
    config.eval = config_dict.create(
        sequences=512,  # held-out windows, drawn evenly over the held-out part
        every_steps=placeholder(int),  # None: at the end only
        # slots | dropless | dense. None: dropless where tokens choose their experts, moe.dispatch elsewhere.
        dispatch=placeholder(str),
        stores=(),  # also evaluate on these at the end: NAME=FOLDER, several with commas; the vocabulary is the store's
    )
    config.checkpoint = config_dict.create(
        every_steps=placeholder(int),
        every_minutes=10.0,
        keep=2,
    )
    config.sweep = config_dict.create(
        pack=1,  # runs that train together in one program, at most; they differ in seed and learning rate alone
    )
    config.profile = config_dict.create(
        first_step=placeholder(int),  # the profiler traces from here on, into runs/<name>/profile; None: never
        steps=3,
    )
    config.mesh = config_dict.create(replica=1, data=1, expert=-1)  # one may be -1: the devices that are left
    return config


def choose(arg, *known):
    """The variant that a config's argument names, one of `known`; '' without an argument. Raises ValueError."""
    if (arg or "") not in ("", *known):
        raise ValueError(f"the argument {arg!r} is not known; it can be {', '.join(known)}")
    return arg or ""
