"""The FLOP formulas against multiply-adds counted from matrix shapes."""

import dataclasses

import numpy as np
import pytest

from moe_jax import flops

MODEL = flops.Model(
    n_active_nonemb=3 * (4 * 8**2 + 2 * 8 * 32),  # attention and a feed-forward of width 32, 3 layers
    n_active=3 * (4 * 8**2 + 2 * 8 * 32) + 3 * 8 * 16 + 2 * 8 * 100,
    n_router=3 * 8 * 16,  # 16 experts
    n_layers=3,
    d_model=8,
    attention_width=8,
    sequence_length=10,
    vocab_size=100,
)


def test_a_step_costs_six_flops_for_each_multiply_add_of_the_forward_pass():
    attention = [(8, 8)] * 4 + [(8, 10)] * 2  # q, k, v, o; scores and their use over 10 keys
    layer = [*attention, (8, 16), (8, 32), (32, 8)]
    multiply_adds = 3 * sum(a * b for a, b in layer) + 8 * 100
    assert flops.train_step(MODEL) == 6 * multiply_adds


def test_the_papers_differ_in_what_they_count():
    beside = flops.attention_scores(MODEL) + flops.unembedding(MODEL)
    assert flops.abnar2025(MODEL) - flops.krajewski2024(MODEL) == beside
    assert flops.abnar2025(MODEL) - flops.train_step(MODEL) == 8 * MODEL.n_router  # dispatch and combine
    assert flops.six_nd(MODEL) == 6 * MODEL.n_active


@pytest.mark.parametrize("name", flops.FORMULAS)
def test_integers_stay_exact_and_arrays_broadcast(name):
    formula = flops.FORMULAS[name]
    large = dataclasses.replace(MODEL, n_active_nonemb=10**17 + 1, n_active=10**17 + 1)
    larger = dataclasses.replace(MODEL, n_active_nonemb=10**17 + 2, n_active=10**17 + 2)
    assert formula(larger) - formula(large) == 6
    sizes = {"n_active_nonemb": np.full(3, MODEL.n_active_nonemb), "n_active": np.full(3, MODEL.n_active)}
    many = dataclasses.replace(MODEL, **sizes)
    assert formula(many).tolist() == [formula(MODEL)] * 3
