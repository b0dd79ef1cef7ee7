"""Iso-FLOP parabolas and surfaces: optima of a known law come back, maxima and ends of the data are no optima."""

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.laws.isoflop import minima, surfaces
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
