"""Iso-FLOP parabolas and surfaces: optima of a known law come back, maxima and ends of the data are no optima."""

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.laws.isoflop import envelope, minima, one_budget, surfaces
from tests.planted_laws import budgets_of, planted_surface
from tests.reference import REFERENCE, needs_reference


def test_parabolas_find_the_optimum_of_a_known_law():
    law, budgets = laws.published("chinchilla", "besiroglu2024"), [6e18, 1e20, 3e21]
    found = minima.fit(*budgets_of(law, budgets, np.geomspace(0.6, 1.6, 7)), resampling=laws.Resampling(samples=0))
    exact = [p.values["n_total"] for p in map(laws.Planner(law).best, budgets)]
    assert found.table["usable"].all()
    assert found.table["N"].to_numpy() == pytest.approx(exact, rel=0.03)
    assert (6 * found.table["N"] * found.table["tokens"]).to_numpy() == pytest.approx(budgets)
    assert found.exponent == pytest.approx(0.3658 / (0.3478 + 0.3658), abs=0.005)  # beta / (alpha + beta)
    assert np.isnan(found.interval).all()


@needs_reference
def test_approach_2_on_hoffmann_s_points():
    """Hoffmann et al. print .49 with 80% within (.462, .534)."""
    points = pd.read_csv(REFERENCE / "chinchilla_epoch.csv").sort_values("loss").iloc[:-5]
    N, C = points["Model Size"].to_numpy(), points["Training FLOP"].to_numpy()
    budgets = [6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21]
    found = minima.fit(
        N,
        C / (6 * N),
        C,
        points["loss"].to_numpy(),
        budgets=budgets,
        tolerance=0.15,
        resampling=laws.Resampling(samples=200),
    )
    assert len(found.table) == 9 and found.table["usable"].all()
    assert 0.462 < found.interval[0] < found.exponent < found.interval[1] < 0.534


def test_intervals_of_the_exponent_cover_as_often_as_they_say():
    """80% intervals of 30 noisy sweeps: 24 ± 2.2 hits expected."""
    law, budgets, hits = laws.published("chinchilla", "besiroglu2024"), [6e18, 3e19, 1e20, 6e20, 3e21], 0
    N, D, C, loss = budgets_of(law, budgets, np.geomspace(0.6, 1.6, 12))
    truth = minima.fit(N, D, C, loss, resampling=laws.Resampling(samples=0)).exponent
    for sweep in range(30):
        noisy = loss + 0.002 * np.random.default_rng(sweep).standard_normal(len(loss))
        low, high = minima.fit(N, D, C, noisy, resampling=laws.Resampling(samples=40)).interval
        hits += low <= truth <= high
    assert 18 <= hits <= 29, hits


def test_a_maximum_or_an_end_of_the_data_is_no_optimum():
    N = np.tile(np.geomspace(1e8, 1e9, 5), 3)
    x = np.log(N) - np.log(3e8)
    flops = np.repeat([1e18, 1e19, 1e20], 5)
    loss = np.select([flops == 1e18, flops == 1e19], [3 - x**2, 3 + (x - 9) ** 2], 3 + x**2)
    found = minima.fit(N, flops / (6 * N), flops, loss, resampling=laws.Resampling(samples=5))
    assert found.table["usable"].tolist() == [False, False, True]
    assert found.table["N"][2] == pytest.approx(3e8)
    assert np.isnan(found.exponent)
    with pytest.raises(errors.UserError, match="no budget has runs of three sizes"):
        minima.fit(N[:2], N[:2], flops[:2], loss[:2])


def test_a_surface_of_degree_two_is_recognised():
    N, S, loss = planted_surface(noise=0.002)
    found = surfaces.fit(N, S, loss)
    assert found.degrees == (2, 2, 2)
    assert found.rmse_cv < 0.003 and found.correlation_cv > 0.99
    _, _, truth = planted_surface(noise=0)
    assert np.abs(found.loss(N, S) - truth).max() < 0.005


def test_surfaces_give_the_best_size_only_inside_the_data():
    N, S, loss = planted_surface(noise=0)
    found = surfaces.fit(N, S, loss)
    s = np.log(2)  # S = .5
    n_best = (3.55 + 0.05 * s) / (2 * 0.085 + 2 * 2e-5 * s**2)  # where the derivative in n is zero
    assert found.best_size([0.5], 1e8, 1e10)[0] == pytest.approx(np.exp(n_best), rel=0.01)
    assert np.isnan(found.best_size([0.5], 1e8, 2e8)[0])
    with pytest.raises(errors.UserError, match="5 runs of this budget cannot determine"):
        surfaces.fit(N[:5], S[:5], loss[:5])


@pytest.mark.parametrize("method", one_budget.METHODS)
def test_each_method_finds_the_minimum_and_its_bootstrap_agrees_with_it(method):
    """resampled() solves all samples at once: a sample of every run once is the fit itself."""
    law, budgets = laws.published("chinchilla", "hoffmann2022"), [1e20]
    N, _, _, loss = budgets_of(law, budgets, np.geomspace(0.3, 3, 9), noise=1e-4)
    found = one_budget.METHODS[method](np.log(N), loss)
    assert np.exp(found.at) == pytest.approx(laws.Planner(law).best(1e20).values["n_total"], rel=0.05)
    assert found.evaluate(found.at) == pytest.approx(found.loss)
    counts = np.array([np.ones(9, int), [3, 0, 0, 3, 0, 0, 3, 0, 0], [2, 0, 1, 1, 1, 0, 2, 1, 1]])
    once, few, other = one_budget.resampled(method, np.log(N), loss, counts)
    assert once == pytest.approx(found.at, abs=1e-8)
    assert np.isnan(few) == (one_budget.SIZES[method] > 3)
    drawn = np.repeat(np.arange(9), counts[2])
    assert other == pytest.approx(one_budget.METHODS[method](np.log(N)[drawn], loss[drawn]).at, abs=1e-6)


@pytest.mark.parametrize("method", ["cubic", "akima", "window"])
def test_the_other_methods_know_no_minimum_at_an_end_either(method):
    x = np.log(np.geomspace(1e8, 1e9, 7))
    for loss in (3 - (x - x.mean()) ** 2, 3 - 0.1 * x, 3 + 0.1 * x):
        found = one_budget.METHODS[method](x, loss)
        assert not found.usable and found.why, (method, found)


def test_a_window_forgets_the_far_arm():
    """Sizes from 1/32 to 2 times the optimum: the parabola through all is off by a tenth or more, the window is not."""
    law = laws.published("chinchilla", "besiroglu2024")
    N, _, _, loss = budgets_of(law, [1e20], np.geomspace(1 / 32, 2, 9))
    exact = laws.Planner(law).best(1e20).values["n_total"]
    at = {m: np.exp(one_budget.METHODS[m](np.log(N), loss).at) / exact for m in ("parabola", "window")}
    assert abs(at["parabola"] - 1) > 0.05 > 3 * abs(at["window"] - 1)


@pytest.mark.parametrize(("low", "high", "warned"), [(1 / 128, 2, 20), (1 / 4, 4, 0)], ids=["off centre", "centred"])
def test_a_grid_off_its_minimum_is_warned_of(low, high, warned):
    """Of 20 noisy budgets: all where the bias is above the interval, at most two where it is a fraction of it."""
    law, said = laws.published("chinchilla", "besiroglu2024"), []
    N, D, C, loss = budgets_of(law, [1e20], np.geomspace(low, high, 9))
    for seed in range(20):
        noisy = loss + 0.002 * np.random.default_rng(seed).standard_normal(9)
        said += minima.fit(N, D, C, noisy, resampling=laws.Resampling(samples=100, seed=seed)).warnings
    assert len(said) == warned if warned else len(said) <= 2
    assert all("biases the parabola's minimum by more than its interval: the runs reach" in s for s in said)
    silent = minima.fit(N, D, C, loss, resampling=laws.Resampling(samples=0))
    assert silent.warnings == (
        "without bootstrap samples it is not tested whether the grids of sizes bias the parabolas",
    )


def curves_of_runs(law, steps=300, noise=0.0):
    """Training curves of nine sizes whose every point is the law's loss, as a constant rate would leave them."""
    rng = np.random.default_rng(0)
    for N in np.geomspace(3e7, 3e9, 9):
        tokens = np.linspace(1 / steps, 1, steps) * 60 * N
        loss = law.loss_at({"N": N, "D": tokens}) + noise * rng.standard_normal(steps)
        yield envelope.TrainingCurve(N, tokens, loss, 6 * N)


def test_the_envelope_of_training_curves_has_the_law_s_exponent():
    law = laws.published("chinchilla", "besiroglu2024")
    found = envelope.of_curves([*curves_of_runs(law, noise=0.003)], laws.Resampling(samples=20))
    truth = 0.3658 / (0.3478 + 0.3658)
    assert found.exponent == pytest.approx(truth, abs=0.04)
    assert found.power_laws[:, 0].sum() == pytest.approx(1, abs=0.02)  # N* D* is the budget
    good = found.table[found.table["usable"]]
    exact = [laws.Planner(law).best(C).values["n_total"] for C in good["flops"].iloc[::6]]
    assert np.abs(np.log(good["N"].iloc[::6] / exact)).max() < 0.7  # sizes are a factor 1.8 apart
    assert {*found.table["N"]} <= {c.N for c in curves_of_runs(law)}
    edges = found.table[~found.table["usable"]]
    assert len(edges) and (edges["why"] == "the best run is an end of the sizes").all()
    with pytest.raises(errors.UserError, match="an envelope needs runs of three sizes, and these have 1"):
        envelope.of_curves([*curves_of_runs(law)][:1])


def test_the_envelope_of_final_losses_holds_runs_that_no_cheaper_one_beats():
    N = np.array([1, 2, 4, 1, 2, 4, 1, 2, 4]) * 1e8
    D = np.array([8, 4, 2, 16, 8, 4, 32, 16, 8]) * 1e9 * np.tile([1, 1.01, 1.02], 3)
    loss = np.array([3.4, 3.3, 3.5, 3.2, 3.0, 3.1, 3.15, 2.8, 2.9])
    table = envelope.of_final_losses(N, D, 6 * N * D, loss, laws.Resampling(samples=5)).table
    assert table["loss"].tolist() == [3.4, 3.3, 3.2, 3.0, 2.8]
    assert table["usable"].tolist() == [False, False, False, True, True]
