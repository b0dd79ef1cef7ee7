"""The train step: compiled once for all runs of a shape, and its schedule, optimizer and window are what they say."""

import jax
import numpy as np
import optax
import pytest

from moe_jax.training import optimizer
from moe_jax.training.step import recent_means
from tests.models import config, put, trainer, windows


def test_runs_of_one_shape_share_one_compile():
    """D, learning rate and seed are values; every leaf of the state comes out laid out as it went in."""
    a = config("train.tokens=1e4")
    b = config("train.tokens=9e5", "optim.learning_rate=1e-4", "seed=5")
    t = trainer(a, data=2, expert=4)
    for c in (a, b):
        state = t.init(c.seed)
        for step in range(3):
            before = jax.tree.map(lambda x: x.sharding, state)
            state, _ = t.step(state, put(t, windows(c, step)), optimizer.schedule_of(c))
            assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, state, before))
    assert t.step._cache_size() == 1
    assert t._init._cache_size() == 1


@pytest.mark.parametrize("by_lr", [True, False])
def test_the_optimizer_is_optax_adamw(by_lr):
    """Against optax's own chain, step by step. (optax decays by the rate; abnar2025's form by the schedule's shape
    alone.)"""
    overrides = (f"optim.weight_decay_by_lr={by_lr}", "optim.weight_decay=0.2", "optim.clip_norm=0.5")
    c = config(*overrides).optim
    schedule = optimizer.Schedule(np.float32(0.1), np.int32(3), np.int32(3), np.int32(10))
    params = {"a": jax.numpy.arange(6.0).reshape(2, 3), "b": jax.numpy.ones(4)}
    ours, theirs = params, params
    adam = optimizer.transformation(c, {}, {})
    decay = c.weight_decay if by_lr else c.weight_decay / 0.1
    chain = optax.chain(
        optax.clip_by_global_norm(0.5),
        optax.adamw(lambda s: optimizer.learning_rate(c, schedule, s), *c.betas, c.eps, weight_decay=decay),
    )
    state, other = adam.init(ours), chain.init(theirs)
    for step in range(10):
        gradient = jax.tree.map(lambda p, s=step: jax.numpy.sin(p * (s + 1)), params)
        clipped = optimizer.clipped(c, gradient, optax.tree.norm(gradient))
        direction, state = optimizer.direction(adam, clipped, state, ours)
        rate = optimizer.learning_rate(c, schedule, jax.numpy.int32(step))
        ours = optimizer.apply_update(c, ours, direction, rate, schedule.learning_rate)
        update, other = optimizer.direction(chain, gradient, other, theirs)
        theirs = optax.apply_updates(theirs, update)
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_the_cosine_schedule():
    c = config("optim.final_fraction=0.1").optim
    schedule = optimizer.Schedule(np.float32(2.0), np.int32(4), np.int32(4), np.int32(20))
    rates = np.array([optimizer.learning_rate(c, schedule, jax.numpy.int32(s)) for s in range(21)])
    np.testing.assert_allclose(rates[:4], [0.5, 1.0, 1.5, 2.0], rtol=1e-6)
    assert rates[4] == pytest.approx(2.0) and rates[20] == pytest.approx(0.2)
    assert rates[12] == pytest.approx(1.1)  # half-way: the mean of both ends
    assert np.all(np.diff(rates[4:]) < 0)


def test_the_wsd_schedule():
    """Stable, then a line; before the decay nothing depends on how long the run is."""
    overrides = ("optim.schedule=wsd", "optim.decay_fraction=0.2", "optim.warmup_fraction=None")
    long = config(*overrides, "optim.warmup_tokens=1000", "train.tokens=7680", "optim.learning_rate=2")
    short = config(*overrides, "optim.warmup_tokens=1000", "train.tokens=3840", "optim.learning_rate=2")
    assert (long.steps, long.warmup_steps, long.decay_start, short.decay_start) == (30, 4, 24, 12)

    def rates(c):
        steps = range(c.steps + 1)
        return np.array([optimizer.learning_rate(c.optim, optimizer.schedule_of(c), jax.numpy.int32(s)) for s in steps])

    np.testing.assert_allclose(rates(long)[:4], [0.5, 1.0, 1.5, 2.0], rtol=1e-6)
    np.testing.assert_allclose(rates(long)[3:25], 2.0, rtol=1e-6)
    np.testing.assert_allclose(rates(long)[24:], np.linspace(2.0, 0.2, 7), rtol=1e-6)
    assert np.array_equal(rates(long)[:12], rates(short)[:12])


def test_the_window_is_the_mean_of_the_last_steps():
    c = config("train.loss_average_steps=4", "train.tokens=2560")
    t = trainer(c)
    state, losses, dropped = t.init(0), [], []
    for step in range(6):
        state, metrics = t.step(state, put(t, windows(c, step)), optimizer.schedule_of(c))
        losses.append(float(metrics["loss"]))
        dropped.append(float(metrics["dropped_fraction"]))
        means = recent_means(state)
        assert means["loss"] == pytest.approx(np.mean(losses[-4:]), rel=1e-6)
        assert means["dropped_fraction"] == pytest.approx(np.mean(dropped[-4:]), rel=1e-6)


def test_a_small_model_learns_a_small_text():
    c = config("train.tokens=20480", "optim.learning_rate=0.01")
    t = trainer(c)
    state, given = t.init(0), windows(c) % 5
    for step in range(80):
        state, metrics = t.step(state, put(t, given), optimizer.schedule_of(c))
        if step == 0:
            first = float(metrics["loss"])
    assert first == pytest.approx(np.log(37), abs=0.1)  # no idea at first
    assert float(metrics["loss"]) < np.log(5) - 0.05
