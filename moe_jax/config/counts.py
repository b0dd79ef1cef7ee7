"""Parameter counts and training FLOPs of a config, and the capacity of its experts. No JAX.

The papers count parameters differently: all counts are kept apart here, and each law names the one it uses.
"""

import dataclasses
import math

from moe_jax import flops
from moe_jax.config.schema import Config


@dataclasses.dataclass(frozen=True)
class Counts:
    """Parameters of one model. `nonemb` leaves out embeddings, router, norms and biases, as the papers do."""

    n_total_nonemb: int  # N of krajewski2024: n_layers (4d² + m d d_ff E); attention has 2 d Dh (H + N), 4d² by default
    n_active_nonemb: int  # the same with K for E
    n_total: int  # everything that is trained
    n_active: int  # n_total less the experts that a token does not meet
    n_router: int
    n_embedding: int  # token and position embeddings and unembedding; a tied table once
    n_norm: int
    n_bias: int  # of the dense feed-forward; LayerNorm's are in n_norm


@dataclasses.dataclass(frozen=True)
class Flops:
    """FLOPs of training on `tokens`, by the formulas of moe_jax/flops.py."""

    flops_krajewski2024: float
    flops_abnar2025: float
    flops_6nd: float
    train_flops: float  # what the step has to do; MFU comes from this one
    tokens: int


@dataclasses.dataclass(frozen=True)
class RunCounts(Flops, Counts):
    """All that is counted of one run before it is trained."""

    steps: int
    vocab_size: int  # V of its model


def capacity(config: Config) -> int:
    """Slots of one expert for one routing group, ceil(factor · group tokens · top_k / n_experts).

    Expert choice: the sequences that an expert takes at one position, group · K / E."""
    moe = config.moe
    if moe.router == "expert_choice":
        return round(moe.group_sequences * moe.active_rate / moe.expansion_rate)
    tokens = moe.group_sequences * config.data.sequence_length
    return min(math.ceil(moe.capacity_factor * tokens * moe.top_k / moe.n_experts), tokens)


def count_parameters(config: Config, vocab_size: int) -> Counts:
    """Counts of the model of `config` with V = vocab_size; equal to the built model's (tested)."""
    m, moe = config.model, config.moe
    d = m.d_model
    attention = 2 * d * m.head_dim * (m.n_heads + m.n_kv_heads)  # queries and outputs, keys and values
    dense_ff = m.ff_matrices * d * m.d_ff
    total_ff = dense_ff if moe is None else m.ff_matrices * d * moe.d_expert * (moe.n_experts + moe.shared_experts)
    active_ff = dense_ff if moe is None else m.ff_matrices * d * moe.d_expert * (moe.top_k + moe.shared_experts)
    shared_gate = d if moe is not None and moe.shared_gate else 0
    router = 0 if moe is None else m.n_layers * d * moe.n_experts
    norm = d * (2 if m.norm == "layernorm" else 1)  # scale, and LayerNorm's bias
    qk_heads = {"none": 0, "head": 2, "full": m.n_heads + m.n_kv_heads}[m.qk_norm]
    norms_in_block = 2 * norm + (norm if moe is not None and moe.output_norm else 0) + qk_heads * m.head_dim
    n_norm = m.n_layers * norms_in_block + (norm if m.final_norm else 0)
    bias = m.n_layers * (m.d_ff + d) if m.ff_bias and moe is None else 0
    positions = d * config.data.sequence_length if m.positions == "learned" else 0
    embedding = (1 if m.tied_embeddings else 2) * d * vocab_size + positions
    n_total_nonemb = m.n_layers * (attention + total_ff + shared_gate)
    n_active_nonemb = m.n_layers * (attention + active_ff + shared_gate)
    rest = router + embedding + n_norm + bias
    return Counts(
        n_total_nonemb=n_total_nonemb,
        n_active_nonemb=n_active_nonemb,
        n_total=n_total_nonemb + rest,
        n_active=n_active_nonemb + rest,
        n_router=router,
        n_embedding=embedding,
        n_norm=n_norm,
        n_bias=bias,
    )


def count_flops(config: Config, vocab_size: int, tokens: int | None = None) -> Flops:
    """FLOPs of training the model of `config` on `tokens` (default: all batches of its steps)."""
    counts = count_parameters(config, vocab_size)
    D = config.steps * config.batch_tokens if tokens is None else tokens
    model = flops.Model(
        n_active_nonemb=counts.n_active_nonemb,
        n_active=counts.n_active,
        n_router=counts.n_router,
        n_layers=config.model.n_layers,
        d_model=config.model.d_model,
        attention_width=config.model.attention_width,
        sequence_length=config.data.sequence_length,
        vocab_size=vocab_size,
    )
    return Flops(**{name: float(formula(model) * D) for name, formula in flops.FORMULAS.items()}, tokens=D)


def count_run(config: Config, vocab_size: int) -> RunCounts:
    """Parameters of the model and FLOPs of the whole run."""
    parameters, training = count_parameters(config, vocab_size), count_flops(config, vocab_size)
    return RunCounts(**vars(parameters), **vars(training), steps=config.steps, vocab_size=vocab_size)
