"""Routers: nothing is lost, nothing overflows, ties go to the lower index, and tokens ask in order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.model.routers.expert_choice import expert_choice
from moe_jax.model.routers.slots import combine_weights, fill_slots, sort_by_expert
from moe_jax.model.routers.token_choice import token_choice
from tests.models import EXPERT_CHOICE, config

R, T, E = 3, 20, 8
MOE = config().moe


def moe(k, softmax="before_top_k"):
    """The part of a config that a router reads."""
    return dataclasses.replace(MOE, top_k=k, softmax=softmax)


def experts_choose(softmax):
    return config(*EXPERT_CHOICE, f"moe.softmax={softmax}").moe


def logits(seed=0, scale=1.0):
    return scale * jax.random.normal(jax.random.key(seed), (R, T, E))


def filled(logits_RxTxE, k, capacity, softmax="before_top_k"):
    """Token choice, into slots."""
    return fill_slots(*token_choice(logits_RxTxE, moe(k, softmax), capacity), capacity)


@pytest.mark.parametrize("k", [1, 2, E])
@pytest.mark.parametrize("capacity", [1, 3, 7, T])
@pytest.mark.parametrize("softmax", ["before_top_k", "after_top_k"])
def test_token_choice_conserves_tokens(k, capacity, softmax):
    r, seen = filled(logits(), k, capacity, softmax)
    slot, token = np.asarray(r.slot_RxTxK), np.asarray(r.token_RxExC)
    kept = slot < E * capacity
    assert kept.sum() + np.asarray(seen.dropped_R).sum() == R * T * k == np.asarray(seen.load_RxE).sum()
    assert (token < T).sum() == kept.sum()
    assert np.array_equal((token < T).sum(-1), np.minimum(np.asarray(seen.load_RxE), capacity))
    for g, t, j in zip(*np.nonzero(kept), strict=True):  # the two directions are each other's inverse
        e, c = divmod(slot[g, t, j], capacity)
        assert token[g, e, c] == t
    for g in range(R):
        used = slot[g][kept[g]]
        assert len(set(used)) == len(used)
        for e in range(E):  # token-major: an expert keeps the first that ask
            mine = token[g, e][token[g, e] < T]
            assert np.array_equal(mine, np.sort(mine))
    assert np.all((np.asarray(r.weight_RxExC) > 0) == (token < T))


def test_an_expert_keeps_the_first_that_ask():
    same = jnp.zeros((1, T, E)).at[..., 5].set(3.0)
    r, seen = filled(same, 1, 4)
    assert np.asarray(r.token_RxExC)[0, 5].tolist() == [0, 1, 2, 3]
    assert int(seen.dropped_R[0]) == T - 4
    assert np.asarray(r.token_RxExC)[0, :5].min() == T  # all other experts are empty


@pytest.mark.parametrize("k", [1, 3])
def test_prioritised_an_expert_keeps_those_that_want_it_most(k):
    choice, seen = token_choice(logits(3), moe(k, "before_top_k"), T)
    slots, seen = fill_slots(choice, seen, 2, prioritised=True)
    expert, weight = np.asarray(choice.expert_RxTxK), np.asarray(choice.weight_RxTxK)
    assert int(seen.dropped_R.sum()) > 0
    for g in range(R):
        for e in range(E):
            asking, j = np.nonzero(expert[g] == e)
            first = np.argsort(-weight[g].max(-1)[asking], kind="stable")[:2]
            wanted = np.full(2, T)
            wanted[: len(first)] = asking[first]
            assert np.asarray(slots.token_RxExC)[g, e].tolist() == wanted.tolist()
            kept = weight[g, asking[first], j[first]]
            np.testing.assert_allclose(np.asarray(slots.weight_RxExC)[g, e, : len(first)], kept)
            assert np.asarray(slots.slot_RxTxK)[g, asking[first], j[first]].tolist() == [2 * e, 2 * e + 1][: len(first)]


def test_ties_go_to_the_lower_index():
    r, _ = filled(jnp.zeros((1, T, E)), 3, T)
    assert np.unique(np.asarray(r.slot_RxTxK) // T).tolist() == [0, 1, 2]
    chosen, _ = expert_choice(jnp.zeros((1, T, E)), experts_choose("over_experts"), 4)
    assert np.all(np.asarray(chosen.token_RxExC) == np.arange(4))


def test_balance_is_one_when_balanced_and_n_experts_when_not():
    balanced = jnp.tile(10 * jnp.eye(E), (3, 1))[None]

    def balance(logits_RxTxE, k):
        return float(token_choice(logits_RxTxE, moe(k, "before_top_k"), T)[1].balance_R[0])

    assert balance(balanced, 1) == pytest.approx(1, abs=1e-6)
    assert balance(jnp.zeros((1, E, E)), E) == pytest.approx(1, abs=1e-6)
    assert balance(jnp.zeros((1, T, E)).at[..., 2].set(50.0), 1) == pytest.approx(E, rel=1e-6)


def test_weights_before_and_after_top_k():
    x = logits()
    before = token_choice(x, moe(2, "before_top_k"), T)[0].weight_RxTxK
    after = token_choice(x, moe(2, "after_top_k"), T)[0].weight_RxTxK
    p = jnp.sort(jax.nn.softmax(x, axis=-1), axis=-1)[..., :-3:-1]
    np.testing.assert_allclose(before, p, rtol=1e-6)
    np.testing.assert_allclose(after, p / p.sum(-1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize("softmax", ["over_experts", "over_tokens"])
def test_expert_choice_takes_the_best_tokens(softmax):
    x, capacity = logits(1), 4
    r, seen = expert_choice(x, experts_choose(softmax), capacity)
    p = np.asarray(jax.nn.softmax(x, axis=-1 if softmax == "over_experts" else 1))
    for g in range(R):
        for e in range(E):
            best = np.argsort(-p[g, :, e], kind="stable")[:capacity]
            assert np.asarray(r.token_RxExC)[g, e].tolist() == best.tolist()
            np.testing.assert_allclose(np.asarray(r.weight_RxExC)[g, e], p[g, best, e], rtol=1e-6)
    assert int(seen.dropped_R.sum()) == 0
    assert np.all(np.asarray(seen.load_RxE) == capacity)


@pytest.mark.parametrize("k", [1, 3])
def test_combine_weights_are_the_routing(k):
    choice, seen = token_choice(logits(2, 3.0), moe(k, "before_top_k"), T)
    slots, _ = fill_slots(choice, seen, 4)
    w = np.asarray(combine_weights(slots, T))
    kept = np.asarray(slots.slot_RxTxK) < E * 4
    np.testing.assert_allclose(w.sum(-1), np.where(kept, choice.weight_RxTxK, 0).sum(-1), rtol=1e-6)
    assert np.all((w > 0).sum(1) == np.minimum(np.asarray(seen.load_RxE), 4))


def test_statistics():
    _, seen = token_choice(jnp.zeros((1, T, E)), moe(1, "before_top_k"), T)
    assert float(seen.entropy_R[0]) == pytest.approx(np.log(E), rel=1e-6)
    assert float(seen.z_R[0]) == pytest.approx(np.log(E) ** 2, rel=1e-6)


@pytest.mark.parametrize("n_experts", [1, 5, 8, 2**28])
def test_sorting_by_expert_is_stable(n_experts):
    """2^28 experts and 20 assignments are more bits than a packed key has."""
    expert_A = jax.random.randint(jax.random.key(0), (T,), 0, n_experts).at[::3].set(n_experts - 1)
    expert_sorted_A, order_A = sort_by_expert(expert_A, n_experts)
    wanted = np.argsort(np.asarray(expert_A), stable=True)
    assert np.array_equal(order_A, wanted) and np.array_equal(expert_sorted_A, np.asarray(expert_A)[wanted])
