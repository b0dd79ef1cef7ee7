"""Training FLOPs of one token, by four formulas.

Forward and backward pass, with 2 FLOPs a multiply-add and the backward pass twice the forward.
Pure functions of a model's counts: of Python integers for one config (config/counts.py), of arrays for many models at
once (laws/shapes.py). Integers stay exact."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Model:
    """The counts that the formulas use: numbers, or arrays that broadcast against each other."""

    n_active_nonemb: Any  # parameters that a token meets, without embeddings, router, norms and biases
    n_active: Any  # the same with them
    n_router: Any
    n_layers: Any
    d_model: Any
    attention_width: Any  # H Dh, d where heads have d / H
    sequence_length: int
    vocab_size: int


def krajewski2024(m: Model) -> Any:
    """(12 d² c_f + d E G c_r) n_layers with c_f = 6 and c_r = 14 (Krajewski et al. 2024, appendix E).

    14 d E G counts the router with one-hot dispatch and combine. 12 d² is n_active_nonemb / n_layers at K = 1 with
    ReLU."""
    return 6 * m.n_active_nonemb + 14 * m.n_router


def abnar2025(m: Model) -> Any:
    """Abnar et al. 2025, appendix C: krajewski2024's terms, attention scores and unembedding."""
    return krajewski2024(m) + attention_scores(m) + unembedding(m)


def six_nd(m: Model) -> Any:
    """6 N, with N the active parameters, embeddings and all (Kaplan et al. 2020, Hoffmann et al. 2022)."""
    return 6 * m.n_active


def train_step(m: Model) -> Any:
    """What the step has to do: MFU is computed from this formula. A router costs its matrix, dispatch nothing."""
    return 6 * m.n_active_nonemb + 6 * m.n_router + attention_scores(m) + unembedding(m)


def attention_scores(m: Model) -> Any:
    """Scores and their use, 2 · 2 · S · H · Dh forward.

    All S keys count, as in the papers, though a causal mask needs half of them, and what computes them
    (model/causal_attention.py, model/flash_attention.py) does little more than that."""
    return 12 * m.n_layers * m.attention_width * m.sequence_length


def unembedding(m: Model) -> Any:
    """The matrix d × V that gives the logits."""
    return 6 * m.d_model * m.vocab_size


# By the column of results.csv that holds them.
FORMULAS = {
    "flops_krajewski2024": krajewski2024,
    "flops_abnar2025": abnar2025,
    "flops_6nd": six_nd,
    "train_flops": train_step,
}
