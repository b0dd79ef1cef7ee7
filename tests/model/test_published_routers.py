"""Token choice as published models have it, against plain loops: sigmoid scores, weights that add up to a scale, groups
of experts (DeepSeek-V3's router)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.model.routers.token_choice import token_choice
from tests.models import config, distance

R, T, E, K = 2, 30, 12, 3
MOE = dataclasses.replace(config().moe, top_k=K, n_experts=E)
DEEPSEEK = {"score": "sigmoid", "renormalise": True, "routed_scale": 2.5, "expert_groups": 4, "chosen_groups": 2}
ROUTERS = {
    "softmax": {},
    "renormalised softmax": {"renormalise": True},
    "scaled softmax": {"routed_scale": 3.0},
    "softmax after top-k, in groups": {"softmax": "after_top_k", "expert_groups": 3, "chosen_groups": 2},
    "sigmoid": {"score": "sigmoid"},
    "renormalised sigmoid": {"score": "sigmoid", "renormalise": True},
    "groups of softmax shares": {"expert_groups": 4, "chosen_groups": 2},
    "deepseek": DEEPSEEK,
    "all groups": DEEPSEEK | {"chosen_groups": 4},
}
BIASES = [None, jnp.linspace(-0.6, 0.6, E)[jnp.array([3, 9, 0, 7, 11, 2, 5, 10, 1, 8, 4, 6])]]


def moe(**fields):
    return dataclasses.replace(MOE, **fields)


def logits(seed=0, scale=1.5):
    return scale * jax.random.normal(jax.random.key(seed), (R, T, E))


def written_out(logits_E, m, bias_E):
    """(experts from the best on, their weights) of one token, in float64, as the papers' equations go."""
    x = np.asarray(logits_E, np.float64)
    bias = np.zeros(E) if bias_E is None else np.asarray(bias_E, np.float64)
    if m.score == "sigmoid":
        score = 1 / (1 + np.exp(-x))
        biased = score + bias
    else:
        score = np.exp(x) / np.exp(x).sum()
        biased = np.exp(x + bias) / np.exp(x + bias).sum()
    size = E // m.expert_groups
    of_group = [sum(sorted(biased[g * size : (g + 1) * size])[-2:]) for g in range(m.expert_groups)]
    best = sorted(range(m.expert_groups), key=lambda g: (-of_group[g], g))[: m.chosen_groups]
    allowed = [e for e in range(E) if m.expert_groups == 1 or e // size in best]
    chosen = sorted(allowed, key=lambda e: (-biased[e], e))[: m.top_k]
    weight = score[chosen]
    if m.renormalise or m.softmax == "after_top_k":
        weight = weight / weight.sum()
    return chosen, m.routed_scale * weight


@pytest.mark.parametrize("bias_E", BIASES, ids=["no bias", "biases"])
@pytest.mark.parametrize("fields", ROUTERS.values(), ids=ROUTERS)
def test_it_is_the_router_written_out(fields, bias_E):
    m, x = moe(**fields), logits()
    choice, seen = token_choice(x, m, T, bias_E)
    unbiased = np.asarray(token_choice(x, m, T, None)[0].expert_RxTxK)
    for r in range(R):
        for t in range(T):
            chosen, weight = written_out(x[r, t], m, bias_E)
            assert np.asarray(choice.expert_RxTxK)[r, t].tolist() == chosen
            np.testing.assert_allclose(np.asarray(choice.weight_RxTxK)[r, t], weight, rtol=1e-5)
    assert np.array_equal(seen.load_RxE.sum(-1), [T * K] * R)
    assert (bias_E is None) == np.array_equal(choice.expert_RxTxK, unbiased)  # so biases did choose


@pytest.mark.parametrize("fields", ROUTERS.values(), ids=ROUTERS)
def test_gradients_flow_through_the_weights_of_the_chosen(fields):
    """As through the plain quotient of scores, with the choice held fixed."""
    m, x = moe(**fields), logits(1)
    expert_RxTxK = token_choice(x, m, T, BIASES[1])[0].expert_RxTxK
    seen_RxTxK = jax.random.normal(jax.random.key(2), expert_RxTxK.shape)

    def plain(x):
        score_RxTxE = jax.nn.sigmoid(x) if m.score == "sigmoid" else jax.nn.softmax(x, axis=-1)
        weight_RxTxK = jnp.take_along_axis(score_RxTxE, expert_RxTxK, axis=-1)
        if m.renormalise or m.softmax == "after_top_k":
            weight_RxTxK = weight_RxTxK / weight_RxTxK.sum(-1, keepdims=True)
        return (m.routed_scale * weight_RxTxK * seen_RxTxK).sum()

    ours = jax.grad(lambda x: (token_choice(x, m, T, BIASES[1])[0].weight_RxTxK * seen_RxTxK).sum())(x)
    wanted = np.asarray(jax.grad(plain)(x))
    assert np.abs(wanted).max() > 0.01 and distance(np.asarray(ours), wanted) < 1e-5


def test_weights_add_up_to_the_scale():
    choice, _ = token_choice(logits(), moe(**DEEPSEEK), T)
    np.testing.assert_allclose(choice.weight_RxTxK.sum(-1), np.full((R, T), 2.5), rtol=1e-6)


def test_a_token_stays_in_its_groups_whatever_the_biases():
    """Where all biased scores are below 0 too."""
    m = moe(**DEEPSEEK)
    choice, _ = token_choice(logits(), m, T, jnp.full(E, -3.0) + BIASES[1])
    groups = np.asarray(choice.expert_RxTxK) // (E // m.expert_groups)
    assert max(len(set(token)) for token in groups.reshape(-1, K)) <= m.chosen_groups
    assert all(len(set(token)) == K for token in np.asarray(choice.expert_RxTxK).reshape(-1, K))


def test_ties_go_to_the_lower_group_and_the_lower_expert():
    choice, _ = token_choice(jnp.zeros((R, T, E)), moe(**DEEPSEEK | {"chosen_groups": 1}), T)
    assert np.all(np.asarray(choice.expert_RxTxK) == np.arange(K))


def test_scores_that_round_to_zero_have_weights_and_gradients():
    """sigmoid(−200) is 0 in float32."""
    x = logits() - 200
    m = moe(**DEEPSEEK)
    assert np.all(np.asarray(jax.nn.sigmoid(x)) == 0)
    weight, back = jax.vjp(lambda x: token_choice(x, m, T)[0].weight_RxTxK, x)
    np.testing.assert_allclose(weight.sum(-1), np.full((R, T), 2.5), rtol=1e-5)
    (d_x,) = back(jax.random.normal(jax.random.key(1), weight.shape))
    assert np.all(np.isfinite(d_x)) and np.abs(d_x).max() > 0


def test_statistics_of_sigmoid_scores():
    """P_e and the entropy are those of scores divided by their sum; z is of the logits."""
    x = logits(3)
    choice, seen = token_choice(x, moe(**DEEPSEEK), T)
    p = np.asarray(jax.nn.sigmoid(x), np.float64)
    p /= p.sum(-1, keepdims=True)
    for r in range(R):
        asked = np.bincount(np.asarray(choice.expert_RxTxK)[r].ravel(), minlength=E) / (T * K)
        assert float(seen.balance_R[r]) == pytest.approx(E * (asked * p[r].mean(0)).sum(), rel=1e-5)
        assert float(seen.entropy_R[r]) == pytest.approx(-(p[r] * np.log(p[r])).sum(-1).mean(), rel=1e-5)
        z = np.log(np.exp(np.asarray(x[r], np.float64)).sum(-1)) ** 2
        assert float(seen.z_R[r]) == pytest.approx(z.mean(), rel=1e-5)
