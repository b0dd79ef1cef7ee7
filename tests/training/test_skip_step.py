"""A batch whose gradient norm is an outlier is left out, counted, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax.config.schema import SkipStepConfig
from moe_jax.training import optimizer, skip_step
from tests.models import config, put, trainer, windows


def walk(norms, factor=4.0, window=8):
    """Which of the norms are left out, and the rule's memory at the end."""
    c = SkipStepConfig(factor, window)
    state, skipped = skip_step.init(c), []
    judge = jax.jit(lambda g, n, s: skip_step.judge(c, g, n, s))
    for step, norm in enumerate(norms):
        skip, state = judge(state, jnp.float32(norm), jnp.int32(step))
        skipped.append(bool(skip))
    assert int(state.skipped) == sum(skipped)
    return skipped, state


def test_the_rule_is_mean_and_standard_deviation_of_the_norms_before():
    rng = np.random.default_rng(0)
    norms = 1 + 0.1 * rng.standard_normal(60)
    norms[[3, 30, 47]] = 1.6
    skipped, _ = walk(norms)
    window, expected = [], []
    for step, norm in enumerate(norms):
        limit = np.mean(window) + 4 * np.std(window) if window else 0
        skip = step >= 4 and norm > limit
        expected.append(skip)
        window = [*window, limit if skip else norm][-8:]
    assert skipped == expected
    assert not skipped[3] and skipped[30] and skipped[47]  # before half a window is known nothing is left out


def test_a_level_that_has_changed_is_accepted_in_the_end():
    norms = np.where(np.arange(100) < 30, 1.0, 5.0) + 0.05 * np.sin(np.arange(100))
    skipped, _ = walk(norms)
    assert skipped[30] and not any(skipped[60:])


def test_the_shortest_window_lets_what_is_usual_pass():
    for seed in range(5):
        skipped, _ = walk(1 + 0.1 * np.random.default_rng(seed).standard_normal(100), factor=3.0, window=8)
        assert sum(skipped) <= 5


def test_a_norm_that_is_not_finite_is_not_hidden():
    skipped, _ = walk([1.0] * 10 + [np.nan] + [1.0] * 10 + [np.inf])
    assert not skipped[10] and not skipped[-1]


def test_an_outlier_changes_nothing_but_the_step_and_the_counts():
    c = config("skip_step.sigma_factor=5.0", "skip_step.rolling_interval=8", "train.tokens=1e5", "optim.clip_norm=None")
    t = trainer(c, data=2, expert=2)
    state, schedule = t.init(0), optimizer.schedule_of(c)
    for _ in range(4):
        state, metrics = t.step(state, put(t, windows(c)), schedule)
        assert int(metrics["skipped"]) == 0
    state = state.replace(
        skip_step=state.skip_step.replace(norms_W=state.skip_step.norms_W / 100)
    )  # so that the next is one
    before = jax.device_get(state)
    state, metrics = t.step(state, put(t, windows(c, 1)), schedule)
    assert int(metrics["skipped"]) == 1 and int(state.step) == 5
    for a, b in zip(jax.tree.leaves((state.params, state.opt_state)),
                    jax.tree.leaves((before.params, before.opt_state)), strict=True):  # fmt: skip
        assert np.array_equal(a, b)
    assert float(state.recent_WxM[4 % c.train.loss_average_steps, 0]) == float(metrics["loss"])
    assert t.step._cache_size() == 1


def test_without_a_factor_the_state_remembers_no_norms():
    assert trainer(config()).abstract_state.skip_step is None
