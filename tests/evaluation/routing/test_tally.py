"""Counts of choices, against counts by hand."""

import math

import numpy as np
import pytest

from moe_jax.evaluation.routing import summary
from moe_jax.evaluation.routing.tally import Tally

# Six tokens (ids 7, 7, 8, 8, 9, 9) in groups of three; each has two of four experts, and no token has expert 3.
TOKENS = np.array([7, 7, 8, 8, 9, 9])
PAIRS = [(0, 1), (0, 1), (0, 2), (0, 1), (1, 2), (0, 1)]


def chosen(pairs=PAIRS, experts=4):
    mask = np.zeros((len(pairs), experts), bool)
    for t, pair in enumerate(pairs):
        mask[t, list(pair)] = True
    return mask


def tally(capacity=None, parts=1):
    made = Tally(4, 12, 3, capacity)
    rows = zip(*(np.split(x, parts) for x in (TOKENS, chosen(), np.linspace(0, 1, 6))), strict=True)
    for part in rows:
        made.add(*part)
    return made


def spell(token):
    return f"t{token}"


@pytest.mark.parametrize("parts", [1, 2])
def test_counts_by_hand(parts):
    layer = summary.layer_routing(tally(capacity=2, parts=parts), spell)
    assert layer.load == (5, 5, 2, 0) and sum(layer.load) == 6 * 2
    assert layer.together == ((5, 4, 1, 0), (4, 5, 1, 0), (1, 1, 2, 0), (0, 0, 0, 0))
    assert layer.unused == 1 and layer.max_over_mean == 5 / 3 and layer.max_violation == pytest.approx(2 / 3)
    assert [layer.load_percentile(q) for q in (5, 25, 50, 75, 95)] == [0, 0, 2, 5, 5]
    assert layer.entropy == pytest.approx(0.5)
    assert layer.experts_per_token == (2, 2, 2) and layer.tokens_without_expert == 0
    # Group 1: loads 3, 2, 1 of 2 slots each; group 2: 2, 3, 1. One of each is dropped.
    assert layer.dropped_fraction == 2 / 12
    assert summary.layer_routing(tally(), spell).dropped_fraction is None


def test_tokens_by_hand():
    tokens = summary.layer_routing(tally(), spell).top_tokens
    assert set(tokens) == {"0", "1", "2"}
    assert tokens["0"] == (("t7", 2 / 5, pytest.approx(6 / 5)), ("t8", 2 / 5, pytest.approx(6 / 5)),
                           ("t9", 1 / 5, pytest.approx(3 / 5)))  # fmt: skip
    assert tokens["2"] == (("t8", 1 / 2, pytest.approx(1.5)), ("t9", 1 / 2, pytest.approx(1.5)))


def test_pairs_by_hand():
    """Of 6 pairs in all, loads 5, 5, 2: 25 + 10 + 10 = 45 of products, so chance is 25 · 6/45 and 10 · 6/45."""
    [(a, b, seen, chance)] = summary.pairs_above_chance(tally().together_ExE)
    assert (a, b, seen) == (0, 1, 4) and chance == pytest.approx(25 * 6 / 45)


def test_independent_experts_are_no_pairs_and_planted_ones_are_first():
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.choice(8, 2, replace=False)) for _ in range(20_000)]
    even = chosen(pairs, 8).astype(np.int64)
    for _, _, seen, chance in summary.pairs_above_chance(even.T @ even):
        assert abs(seen - chance) < 4 * math.sqrt(chance)
    planted = np.concatenate([even, chosen([(2, 5)] * 1000, 8)])
    (a, b, seen, chance), *others = summary.pairs_above_chance(planted.T @ planted)
    assert (a, b) == (2, 5) and seen / chance > 1.5 > max(seen / chance for _, _, seen, chance in others)


def test_one_expert_a_token_has_no_pairs():
    alone = chosen([(0,), (1,), (1,)]).astype(np.int64)
    assert summary.pairs_above_chance(alone.T @ alone) == ()


def test_tokens_without_an_expert_are_counted():
    made = Tally(4, 12, 4, None)
    made.add(TOKENS[:4], chosen([(), (0, 1, 2), (0,), ()]), np.zeros(4))
    layer = summary.layer_routing(made, spell)
    assert layer.tokens_without_expert == 0.5 and layer.experts_per_token == (0, 0, 3)
