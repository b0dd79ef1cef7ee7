"""The one owner of parameter counts and FLOPs: config in, numbers out, no JAX.

Each law says which count it uses (design §1); all are kept apart here. FLOPs are for the whole training, forward and
backward, with 2 FLOPs a multiply-add and the backward pass twice the forward.
"""

import dataclasses
import math

from moe_jax.config import Config


@dataclasses.dataclass(frozen=True)
class Counts:
    """Parameters of one model. `nonemb` leaves out embeddings, router, norms and biases, as the papers do."""

    n_total_nonemb: int  # N of krajewski2024: n_blocks (4d² + m d d_ff E)
    n_active_nonemb: int  # the same with K for E
    n_total: int  # everything that is trained
    n_active: int  # n_total less the experts that a token does not meet
    n_router: int
    n_embedding: int  # token and position embeddings and unembedding
    n_norm: int
    n_bias: int  # of the dense feed-forward; LayerNorm's are in n_norm


@dataclasses.dataclass(frozen=True)
class Flops:
    """FLOPs of training on `tokens`."""

    flops_krajewski2024: float  # (12 d² 6 + d E G 14) D n_blocks (appendix E); 12 d² = n_active_nonemb at K = 1, ReLU
    flops_abnar2025: float  # appendix C
    flops_6nd: float  # 6 n_active D
    train_flops: float  # what the step has to do; MFU comes from this one
    tokens: int


def capacity(config: Config) -> int:
    """Slots of one expert for one routing group, ceil(factor · group tokens · top_k / n_experts) (design §1).

    Expert Choice: sequences that an expert takes at one position, group K / E."""
    moe = config.moe
    if moe.router == "expert_choice":
        return round(moe.group_sequences * moe.active_rate / moe.expansion_rate)
    tokens = moe.group_sequences * config.data.sequence_length
    return min(math.ceil(moe.capacity_factor * tokens * moe.top_k / moe.n_experts), tokens)


def count_parameters(config: Config, vocabulary_size: int) -> Counts:
    """Counts of the model of `config` with V = vocabulary_size; equal to the built model's (tested)."""
    m, moe = config.model, config.moe
    d = m.d_model
    attention = 4 * d * d
    dense_ff = m.ff_matrices * d * m.d_ff
    total_ff = dense_ff if moe is None else m.ff_matrices * d * moe.d_expert * (moe.n_experts + moe.shared_experts)
    active_ff = dense_ff if moe is None else m.ff_matrices * d * moe.d_expert * (moe.top_k + moe.shared_experts)
    router = 0 if moe is None else m.n_blocks * d * moe.n_experts
    norm = d * (2 if m.norm == "layernorm" else 1)  # scale, and LayerNorm's bias
    norms_in_block = (
        2 * norm + (norm if moe is not None and moe.output_norm else 0) + (2 * (d // m.n_heads) if m.qk_norm else 0)
    )
    n_norm = m.n_blocks * norms_in_block + (norm if m.final_norm else 0)
    bias = m.n_blocks * (m.d_ff + d) if m.ff_bias and moe is None else 0
    positions = d * config.data.sequence_length if m.positions == "learned" else 0
    embedding = 2 * d * vocabulary_size + positions
    n_total_nonemb = m.n_blocks * (attention + total_ff)
    n_active_nonemb = m.n_blocks * (attention + active_ff)
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


def count_flops(config: Config, vocabulary_size: int, tokens: int | None = None) -> Flops:
    """FLOPs of `tokens` (default: the steps' whole batches) through the model of `config`."""
    m, moe = config.model, config.moe
    d, V, S = m.d_model, vocabulary_size, config.data.sequence_length
    counts = count_parameters(config, V)
    D = config.steps * config.batch_tokens if tokens is None else tokens
    n_experts = 0 if moe is None else moe.n_experts
    # Scores and their use: 2 · 2 · S · d forward a token. The papers count all S keys; a causal mask needs half of
    # them,
    # which no dense attention kernel here saves.
    attention_scores = m.n_blocks * 3 * 4 * S * d
    router = m.n_blocks * 6 * d * n_experts
    unembedding = 6 * d * V
    matrices = 6 * counts.n_active_nonemb
    router_14 = m.n_blocks * 14 * d * n_experts  # c_r = 14: the router with one-hot dispatch and combine
    return Flops(
        flops_krajewski2024=float((matrices + router_14) * D),
        flops_abnar2025=float((matrices + router_14 + m.n_blocks * 6 * 2 * d * S + unembedding) * D),
        flops_6nd=float(6 * counts.n_active * D),
        train_flops=float((matrices + attention_scores + router + unembedding) * D),
        tokens=D,
    )
