"""Loads even out by the bias alone, and are logged as they are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.model import expert_load
from moe_jax.model.routers.token_choice import token_choice
from moe_jax.training import optimizer
from tests.models import config, put, trainer, windows

E = 8


def moe(k):
    return dataclasses.replace(config().moe, top_k=k)


@pytest.mark.parametrize("k", [1, 3])
def test_a_skewed_router_is_balanced(k):
    """Expert e is wanted less the higher e is; after enough steps all are asked alike, and stay so."""
    skew_E = -jnp.log(jnp.arange(1.0, E + 1))[None, None]

    def step(bias_1xE, key):
        logits = jax.random.normal(key, (1, 1024, E)) + skew_E
        _, seen = token_choice(logits, moe(k), 1, bias_1xE[0])
        return expert_load.rebalanced(bias_1xE, seen.load_RxE, 0.02), expert_load.max_over_mean(seen.load_RxE)[0]

    bias, found = jax.lax.scan(step, jnp.zeros((1, E)), jax.random.split(jax.random.key(0), 300))
    assert found[0] > 1.5 and np.mean(found[-50:]) < 1.2
    assert np.all(np.diff(bias[0]) > 0)  # what it took: the opposite of the skew


def test_a_bias_moves_towards_the_mean_by_its_rate():
    biases = {"a": jnp.ones((2, 4))}
    moved = expert_load.rebalanced(biases, jnp.array([[5, 5, 5, 5], [0, 10, 6, 4]], jnp.int32), 0.5)
    assert moved["a"].tolist() == [[1, 1, 1, 1], [1.5, 0.5, 0.5, 1.5]]


def test_the_bias_chooses_and_does_not_weigh():
    logits = jax.random.normal(jax.random.key(0), (2, 16, E))
    bias = jnp.zeros(E).at[5].set(100.0)

    def weights(logits, bias):
        return token_choice(logits, moe(2), 1, bias)[0].weight_RxTxK

    chosen = token_choice(logits, moe(2), 1, bias)[0].expert_RxTxK
    assert np.all(chosen[..., 0] == 5)
    share = jnp.take_along_axis(jax.nn.softmax(logits), chosen, axis=-1)
    np.testing.assert_allclose(weights(logits, bias), share, rtol=1e-6)
    to_logits, to_bias = jax.grad(lambda *a: weights(*a)[..., 0].sum(), argnums=(0, 1))(logits, bias)
    assert np.any(to_logits[..., 5] != 0) and np.all(to_bias == 0)


@pytest.mark.parametrize("every_layer", [False, True])
def test_what_is_logged_of_layers(every_layer):
    statistics = {
        "dropped_fraction": jnp.array([0.1, 0.3]),
        "load_E": jnp.array([[4, 4, 4, 4], [12, 4, 0, 0]], jnp.int32),
    }
    found = {name: np.asarray(value).tolist() for name, value in expert_load.logged(statistics, every_layer).items()}
    assert found["dropped_fraction"] == pytest.approx(0.2)
    assert found["max_over_mean_load"] == 3 and found["unused_experts"] == 0.25
    if every_layer:
        assert found["max_over_mean_load_by_layer"] == [1, 3] and found["unused_experts_by_layer"] == [0, 0.5]
    else:
        assert all(isinstance(value, float) for value in found.values())
    assert expert_load.logged({}, every_layer) == {}


def test_a_biased_run_is_more_even_than_its_twin():
    """Same seed, same batches; neither loss balances."""

    def last_load(rate):
        c = config("moe.load_balance_loss_weight=0", f"moe.bias_update_rate={rate}", "optim.learning_rate=0.01")
        t = trainer(c)
        state = t.init(0)
        for step in range(60):
            state, metrics = t.step(state, put(t, windows(c, step)), optimizer.schedule_of(c))
        return float(metrics["max_over_mean_load"])

    assert last_load(0.02) < 0.75 * last_load(0)
