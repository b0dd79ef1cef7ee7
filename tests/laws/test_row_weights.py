"""--weights and --sigma: rows that count more, in the fit and in all that follows from it."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from moe_jax import laws
from moe_jax.errors import UserError
from moe_jax.laws.rows import select
from tests.planted_laws import QUICK

FORM = laws.FORMS["chinchilla"]
TRUTH = dataclasses.replace(
    laws.published("chinchilla"), coefficients={"E": 1.8, "A": 430.0, "B": 380.0, "alpha": 0.35, "beta": 0.29}
)
LEAST_SQUARES = laws.Objective(huber=np.inf)


def table(noise, seed=0):
    """24 runs; noise: relative, of all or of each."""
    N, D = (x.ravel() for x in np.meshgrid(np.geomspace(1e7, 1e10, 6), np.geomspace(1e9, 1e12, 4)))
    loss = TRUTH.loss_at({"N": N, "D": D})
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(24))
    return pd.DataFrame({"n_total": N, "tokens": D, "eval_loss": loss, "name": [f"n{i}" for i in range(24)]})


def fit(frame, **options):
    return laws.fit(frame, "chinchilla", **{"start": 8, "resampling": QUICK} | options)


@pytest.mark.parametrize(
    "objective", [laws.Objective(), laws.Objective(space="linear", huber=0.1, l2=1e-6)], ids=["log", "with a penalty"]
)
def test_a_weight_counts_as_that_many_rows(objective):
    """Weights are relative, and rows of weight zero are left out with a note."""
    runs, times = table(noise=0.005), np.resize([2, 1, 0, 3], 24)
    repeated = runs.loc[np.repeat(runs.index, times)]
    repeated["name"] = range(len(repeated))
    weighted = fit(runs.assign(w=times / 7), weights="w", objective=objective)
    expected = fit(repeated, objective=objective)
    assert dict(weighted.law.coefficients) == pytest.approx(dict(expected.law.coefficients), rel=1e-5)
    assert len(weighted.rows) == 18 and "6 rows of 24 left out: w is zero" in weighted.law.data.notes
    assert any(
        note.startswith("rows are weighted by --weights=w, 0.1429 to 0.4286") for note in weighted.law.data.notes
    )


@pytest.mark.parametrize("objective", [laws.Objective(), LEAST_SQUARES], ids=["huber", "least squares"])
def test_sigma_recovers_planted_constants_better_than_equal_weights(objective):
    """Half of the runs have ten times the noise of the others."""
    relative = np.where(np.random.default_rng(7).permutation(24) < 12, 0.03, 0.003)

    def error(seed, sigma):
        runs = table(relative, seed)
        found = fit(
            runs.assign(sd=relative * runs["eval_loss"]), sigma=sigma, objective=objective, start=2
        ).law.coefficients
        return np.mean([np.log(found[k] / TRUTH.coefficients[k]) ** 2 for k in FORM.names])

    knowing, not_knowing = ([error(seed, sigma) for seed in range(6)] for sigma in ("sd", ""))
    assert np.mean(knowing) < 0.5 * np.mean(not_knowing)


@pytest.mark.parametrize("space", ["log", "linear"])
def test_equal_deviations_of_what_is_fitted_are_no_weights(space):
    runs = table(noise=0.005)
    runs["sd"] = 0.01 * runs["eval_loss"] if space == "log" else 0.02
    objective = laws.Objective(space=space)
    plain, weighted = fit(runs, objective=objective), fit(runs, sigma="sd", objective=objective)
    assert dict(weighted.law.coefficients) == pytest.approx(dict(plain.law.coefficients), rel=1e-6)
    assert weighted.law.method.objective["value"] == pytest.approx(plain.law.method.objective["value"], rel=1e-9)


def test_huber_is_of_standardised_residuals():
    """f is Σ k² huber of width δ/k: what a row adds, summed by hand."""
    runs, delta = table(noise=0.01), 0.004
    sigma = np.geomspace(0.002, 0.2, 24)
    fitted = fit(runs.assign(sd=sigma), sigma="sd", objective=laws.Objective(space="linear", huber=delta))
    k = 1 / sigma / np.sqrt(np.mean(1 / sigma**2))
    r = np.abs(k * fitted.residuals)
    assert (r > delta).any() and (r < delta).any()
    by_hand = np.where(r <= delta, r**2 / 2, delta * (r - delta / 2)).sum()
    assert fitted.law.method.objective["value"] == pytest.approx(by_hand, rel=1e-9)


@pytest.mark.parametrize("option", ["weights", "sigma"])
def test_bootstrap_profile_and_leverage_know_the_weights(option):
    """Runs that hardly count change nothing, however wrong they are."""
    wrong = np.arange(24) % 4 == 0
    runs = table(noise=0.005).assign(w=np.where(wrong, 1e-12, 1.0), sd=np.where(wrong, 1e6, 1.0))
    column = {"weights": "w", "sigma": "sd"}[option]

    def of(losses):
        few = laws.Resampling(samples=12)
        return fit(runs.assign(eval_loss=losses), objective=LEAST_SQUARES, resampling=few, **{option: column})

    right, spoilt = of(runs["eval_loss"]), of(runs["eval_loss"] * np.where(wrong, 1.3, 1.0))
    for name, interval in right.law.intervals.items():
        assert spoilt.law.intervals[name] == pytest.approx(interval, rel=1e-4), name
    around = right.law.coefficients["alpha"] * np.array([0.97, 1.0, 1.03])
    profiles = [laws.profile(one, "alpha", around, tries=1) for one in (right, spoilt)]
    np.testing.assert_allclose(profiles[1]["deviance"], profiles[0]["deviance"], rtol=1e-3, atol=1e-3)
    assert profiles[0]["deviance"].argmin() == 1
    shifts = laws.leverage(spoilt).set_index("name")["shift"]
    assert shifts[[f"n{i}" for i in np.flatnonzero(wrong)]].max() < 1e-3 * shifts.max()


def test_law_json_keeps_how_rows_are_weighted(tmp_path):
    runs = table(noise=0.005).assign(sd=np.geomspace(0.01, 0.02, 24))
    fitted = fit(runs, sigma="sd")
    fitted.law.save(tmp_path / "law.json")
    law = laws.load(tmp_path / "law.json")
    assert law.data.weights == "sigma=sd"
    rows, _ = laws.rows_of(law, runs)
    np.testing.assert_array_equal(rows.weights.values, runs["sd"])
    assert fit(runs).law.data.weights == ""


def test_weights_hold_for_the_laws_of_a_comparison():
    """Noise of 30% in half of the runs, which weigh nothing."""
    noisy = np.arange(24) % 2 == 0
    runs = table(np.where(noisy, 0.3, 1e-4)).assign(w=np.where(noisy, 0, 1.0))
    found = laws.compare(runs, ["chinchilla"], weights="w", start=8, resampling=QUICK)
    assert found["rmse_fit"][0] < 1e-3


@pytest.mark.parametrize(
    ("weights", "sigma", "words"),
    [
        ("w", "sd", "--weights and --sigma exclude each other"),
        ("none", "", r"no column 'none' \(--weights names it\); the columns are n_total, .*, twice"),
        ("", "name", r"name is not a number \(n0\)"),
        ("minus", "", r"minus is negative \(-1.0\) in 1 row, first n3: a weight is zero or above"),
        ("zeros", "", "zeros is zero in all rows: --weights leaves nothing to fit"),
        ("", "zeros", "zeros is zero or negative"),
    ],
)
def test_bad_weights_are_refused(weights, sigma, words):
    runs = table(noise=0.005).assign(w=1.0, sd=0.1, minus=1.0, zeros=0.0)
    runs.loc[3, "minus"] = -1.0
    with pytest.raises(UserError, match=words):
        fit(runs, weights=weights, sigma=sigma, columns={"twice": "2*w"})


def test_a_comparison_of_rows_by_index_takes_their_weights_along():
    runs = table(noise=0.005).assign(w=np.arange(1.0, 25))
    chosen = select(runs, FORM, weighting="weights=w").take(np.array([5, 2]))
    np.testing.assert_array_equal(chosen.weights.values, [6, 3])
