"""Speeds of shapes, and plans by the clock: rates are recovered, and brute force over models finds nothing better."""

from dataclasses import replace

import numpy as np
import pytest

from moe_jax import errors, laws
from moe_jax.laws import wall_clock

PAPER = laws.published("krajewski2024")
SHAPE = laws.Shape()


def rate(d, G, K=1.0, E=64.0):
    """A planted chip: wide models use it better, fine experts worse."""
    return 1e14 * (d / 1024) ** 0.3 * G**-0.4 * np.where(E > 1, 0.7, 1.0)


def measured(widths=(256, 512, 1024, 4096), granularities=(1, 2, 4, 8, 16), dense=True, noise=0.0):
    """Runs at the planted rate."""
    d, G = (a.ravel() for a in np.meshgrid(widths, granularities))
    E = np.full(len(d), 64.0)
    if dense:
        d, G, E = np.r_[d, widths], np.r_[G, np.ones(len(widths))], np.r_[E, np.ones(len(widths))]
    flops = SHAPE.flops_per_token("train_flops", SHAPE.columns(d, E, 1.0, G))
    scatter = np.exp(noise * np.random.default_rng(0).standard_normal(len(d)))
    return {
        "d_model": d, "granularity": G, "active_rate": np.ones(len(d)), "expansion_rate": E, "flops_per_token": flops,
        "tokens_per_chip_second": rate(d, G, E=E) * scatter / flops,
    }  # fmt: skip


SPEED = laws.speed.fit(measured())


def test_a_power_law_of_rates_is_recovered():
    assert SPEED.method == "regression" and SPEED.error < 1e-9
    d, G = np.array([300.0, 2000.0]), np.array([3.0, 12.0])
    columns = SHAPE.columns(d, 64.0, 1.0, G)
    assert SPEED.rate(columns) == pytest.approx(rate(d, G))
    seconds = SPEED.seconds_per_token(SHAPE, columns)
    assert seconds == pytest.approx(SHAPE.flops_per_token("train_flops", columns) / rate(d, G))


def test_the_stated_error_is_that_of_new_shapes():
    noisy = laws.speed.fit(measured(noise=0.1))
    assert 0.07 < noisy.error < 0.16
    new = SHAPE.columns(np.array([384.0, 700.0, 3000.0]), 64.0, 1.0, np.array([2.0, 4.0, 8.0]))
    off = np.log(noisy.rate(new) / rate(new["d_model"], new["granularity"]))
    assert np.abs(off).max() < 3 * noisy.error


def test_rates_that_no_power_law_follows_are_interpolated():
    """A step of 4 between two granularities, three times in a row: the nearest shape predicts better."""
    runs = measured(widths=np.geomspace(256, 4096, 9), granularities=(1, 2, 4), dense=False)
    runs["tokens_per_chip_second"] = runs["tokens_per_chip_second"] * np.where(
        np.sin(3 * np.log(runs["d_model"])) > 0, 1, 4
    )
    found = laws.speed.fit(runs)
    assert found.method == "nearest"
    at = SHAPE.columns(runs["d_model"], 64.0, 1.0, runs["granularity"])
    assert found.rate(at) == pytest.approx(runs["tokens_per_chip_second"] * runs["flops_per_token"])


def test_outside_the_measured_shapes_the_rate_is_that_of_their_edge():
    at = [SHAPE.columns(np.float64(d), 64.0, 1.0, 4.0) for d in (4096, 1e5)]
    assert SPEED.rate(at[1]) == pytest.approx(SPEED.rate(at[0]))
    assert SPEED.outside(at[0]) == () and SPEED.outside(at[1]) == ("d_model",)


def test_one_shape_says_that_it_knows_no_error():
    one = laws.speed.fit(measured(widths=(512,), granularities=(4,), dense=False))
    assert one.method == "nearest" and np.isnan(one.error) and "cannot be known" in str(one)


@pytest.mark.parametrize("hours", [3.0, 300.0])
def test_no_other_model_of_the_time_is_better(hours):
    """Widths and granularities in brute force, on the tokens that each trains in the time."""
    clock = laws.Planner(PAPER, speed=SPEED)
    plan = clock.best(3600 * hours)
    assert plan.values["chip_seconds"] == pytest.approx(3600 * hours)
    d, G = (a.ravel() for a in np.meshgrid(np.geomspace(64, 2e4, 3000), laws.choices.GRANULARITIES))
    columns = SHAPE.columns(d, 64.0, 1.0, G)
    tokens = 3600 * hours * SPEED.rate(columns) / SHAPE.flops_per_token("train_flops", columns)
    losses = PAPER.loss_at({**columns, "tokens": tokens})
    best = np.argmin(losses)
    assert plan.values["loss"] <= losses[best] <= plan.values["loss"] + 1e-6
    assert plan.values["granularity"] == G[best] and plan.values["d_model"] == pytest.approx(d[best], rel=0.01)


def test_slow_fine_experts_are_dropped_by_the_clock():
    """What FLOPs choose takes the same time and is worse; at a rate that no shape changes they agree."""
    clock = laws.Planner(PAPER, speed=SPEED, cost="train_flops")
    by_clock, by_flops = clock.best(3.6e5), wall_clock.best_by_flops(clock, 3.6e5)
    assert by_clock.values["granularity"] < by_flops.values["granularity"]
    assert by_flops.values["chip_seconds"] == pytest.approx(3.6e5, rel=1e-3)
    assert by_clock.values["loss"] < by_flops.values["loss"]
    runs = measured()
    runs["tokens_per_chip_second"] = 1e14 / runs["flops_per_token"]
    flat = replace(clock, speed=laws.speed.fit(runs))
    assert flat.best(3.6e5).values["loss"] == pytest.approx(
        wall_clock.best_by_flops(flat, 3.6e5).values["loss"], rel=1e-6
    )


def test_the_speed_up_is_the_time_that_another_needs_for_the_loss():
    clock = laws.Planner(PAPER, speed=SPEED)
    plan = clock.best(3.6e5)
    coarse = replace(clock, choices=laws.Choices(granularities=[1], expansion_rates=[64]))
    ratio, _ = clock.compute_ratio(plan, coarse)
    assert coarse.best(ratio * 3.6e5).values["loss"] == pytest.approx(plan.values["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"d_model": None}, "have no d_model"),
        ({"tokens_per_chip_second": np.zeros(24)}, "tokens_per_chip_second of the speeds is not above 0"),
    ],
)
def test_what_is_no_speed_is_refused(change, sentence):
    runs = {k: v for k, v in {**measured(), **change}.items() if v is not None}
    with pytest.raises(errors.UserError, match=sentence):
        laws.speed.fit(runs)
