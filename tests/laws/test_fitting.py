"""Fitting: planted constants come back within their own intervals, published ones from the published losses."""

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.laws import presets, starts
from moe_jax.laws.levenberg_marquardt import minimise
from moe_jax.laws.objective import Problem
from tests.planted_laws import QUICK, grid, planted
from tests.reference import REFERENCE, needs_reference, table_3

COLUMNS = {"N": "N_total_nonemb", "D": "D_tokens", "G": "G"}


def krajewski(**changes):
    paper = presets.preset("krajewski2024")
    options = {"objective": paper.objective, "fix": paper.fix, "resampling": QUICK} | changes
    return laws.fit(table_3(), loss="final_train_loss", columns=COLUMNS, **options)


@needs_reference
def test_krajewski2024_is_reproduced_with_its_own_objective():
    fitted = krajewski(resampling=laws.Resampling(samples=100))
    expected = {"g": 2.08, "gamma": 0.583, "a": 18.10, "alpha": 0.1147, "b": 31.1, "beta": 0.1469}
    for name, value in expected.items():
        assert fitted.law.coefficients[name] == pytest.approx(value, rel=2e-3), name
    assert fitted.law.errors["rmse_fit"] == pytest.approx(0.0153, abs=5e-5)
    assert fitted.law.data.n_fit == 75
    assert "c" in fitted.law.identifiability.unidentified
    assert any(s.startswith("c was fixed at 0.472") for s in fitted.law.identifiability.warnings)
    assert any(
        s.startswith("The penalty, not the data, sets") and "beta" in s for s in fitted.law.identifiability.warnings
    )


@needs_reference
def test_krajewski2024_holdout_error():
    fitted = krajewski(split=laws.Split(holdout="lowest:0.2"))
    assert fitted.law.data.n_holdout == 15
    assert fitted.law.errors["rmse_holdout"] == pytest.approx(0.0195, abs=5e-5)
    assert fitted.rows.losses[fitted.held_out].max() <= fitted.rows.losses[~fitted.held_out].min()


@needs_reference
def test_krajewski2024_without_its_penalty_is_another_law():
    fitted = krajewski(objective=laws.Objective(space="linear", huber=0.1))
    assert fitted.law.errors["rmse_fit"] == pytest.approx(0.0121, abs=5e-5)
    assert 4e4 < fitted.law.coefficients["b"] < 7e4
    assert fitted.law.coefficients["beta"] == pytest.approx(0.505, abs=0.005)


def chinchilla_points():
    points = pd.read_csv(REFERENCE / "chinchilla_epoch.csv")
    N = points["Model Size"]
    return pd.DataFrame({"n_total": N, "tokens": points["Training FLOP"] / (6 * N), "eval_loss": points["loss"]})


@needs_reference
@pytest.mark.parametrize(
    ("huber", "tolerance", "expected"),
    [
        (1e-3, 5e-4, {"A": 477.83, "B": 2143.4, "E": 1.81722, "alpha": 0.34731, "beta": 0.36717}),
        (1e-7, 2e-4, {"A": 482.01, "B": 2085.43, "E": 1.8172, "alpha": 0.3478, "beta": 0.3658}),
    ],
    ids=["huber of the grid", "least absolute deviations, as published"],
)
def test_besiroglu2024_both_estimators(huber, tolerance, expected):
    fitted = laws.fit(
        chinchilla_points(),
        law="chinchilla",
        objective=laws.Objective(huber=huber),
        split=laws.Split(drop="highest:5"),
        resampling=QUICK,
    )
    assert fitted.law.data.n_fit == 240
    for name, value in expected.items():
        assert fitted.law.coefficients[name] == pytest.approx(value, rel=tolerance), name
    if huber == 1e-3:
        assert fitted.law.method.objective["value"] <= 0.0010182741


@pytest.mark.parametrize("law", ["chinchilla", "krajewski2024"])
@pytest.mark.parametrize("space", ["log", "linear"])
def test_data_without_noise_give_the_planted_constants(law, space):
    table, truth = planted(law, {**grid(), "n_total": grid()["n_total_nonemb"]}, noise=0.0)
    if law == "chinchilla":  # has no G: whole repeats of a cell would be refused, rightly
        table = pd.DataFrame(table).query("granularity == 1")
    fitted = laws.fit(table, law=law, objective=laws.Objective(space=space), resampling=QUICK)
    for name, value in truth.coefficients.items():
        assert fitted.law.coefficients[name] == pytest.approx(value, rel=1e-4), name
    assert fitted.law.errors["rmse_fit"] < 1e-8


def test_bad_starts_do_not_matter():
    table, truth = planted("krajewski2024", grid(), noise=0.0)
    far = {"c": [2.9], "g": [29.0], "gamma": [1.2], "a": [9e4], "alpha": [0.8], "b": [2.0], "beta": [0.06]}
    fitted = laws.fit(table, start=far, resampling=QUICK)
    assert fitted.law.method.starts == 1
    assert fitted.law.coefficients == pytest.approx(dict(truth.coefficients), rel=1e-3)


def test_an_axis_with_one_value_is_refused_unless_its_coefficients_are_fixed():
    table, _ = planted("krajewski2024", grid(granularities=(4,)), noise=0.002)
    with pytest.raises(errors.UserError, match="granularity has one value only"):
        laws.fit(table, resampling=QUICK)
    assert laws.fit(table, fix={"g": 1.0, "gamma": 0.5}, resampling=QUICK).law.fixed_coefficients == {
        "g": 1.0,
        "gamma": 0.5,
    }


def test_granularity_without_effect_is_not_identified():
    """The smoke grid's case: G changes nothing that noise does not."""
    table, _ = planted(
        "chinchilla", {**grid(3, 3, (1, 2, 4)), "n_total": grid(3, 3, (1, 2, 4))["n_total_nonemb"]}, noise=0.004
    )
    fitted = laws.fit(table, law="krajewski2024", resampling=laws.Resampling(samples=200))
    assert {"g", "gamma"} & set(fitted.law.identifiability.unidentified)
    assert any("not identified" in s for s in fitted.law.identifiability.warnings)


def test_the_same_call_gives_the_same_numbers_and_leaves_precision_alone():
    table, _ = planted("krajewski2024", grid(), noise=0.01)
    one, two = (laws.fit(table, resampling=laws.Resampling(samples=20)).law for _ in range(2))
    assert one.to_json() == two.to_json()
    assert jnp.ones(2).dtype == jnp.float32


def test_intervals_widen_with_noise():
    widths = []
    for noise in (0.002, 0.008):
        table, _ = planted("krajewski2024", grid(), noise=noise)
        low, high = laws.fit(table, fix={"c": 0.472}, resampling=laws.Resampling(samples=200)).law.intervals["alpha"]
        widths.append(high - low)
    assert 2.5 < widths[1] / widths[0] < 6


def test_holdout_rows_do_not_touch_the_fit():
    table, _ = planted("krajewski2024", grid(), noise=0.01)
    worse = {**table, "eval_loss": np.where(table["granularity"] == 16, table["eval_loss"] * 1.3, table["eval_loss"])}
    split = laws.Split(holdout="granularity:16")
    fits = [laws.fit(t, split=split, resampling=QUICK).law for t in (table, worse)]
    assert fits[0].coefficients == fits[1].coefficients
    assert fits[1].errors["rmse_holdout"] > 10 * fits[0].errors["rmse_holdout"]
    assert fits[0].data.range["granularity"] == (1.0, 8.0)
    assert fits[0].data.n_fit + fits[0].data.n_holdout == 125


def test_noise_of_replicated_cells_is_measured():
    once = grid()
    twice = {k: np.concatenate([v, v]) for k, v in once.items()}
    table, _ = planted("krajewski2024", twice, noise=0.01)
    law = laws.fit(table, resampling=QUICK).law
    assert law.errors["noise"] == pytest.approx(0.01 * np.mean(table["eval_loss"]), rel=0.15)
    assert law.errors["replicated_cells"] == 125


def test_penalty_pulls_towards_zero_and_weighs_by_rows():
    """l1 is a weight in the mean over rows: the same data twice give the same law."""
    table, _ = planted("krajewski2024", grid(), noise=0.01)
    frame = pd.DataFrame(table)
    doubled = pd.concat([frame, frame.assign(eval_loss=frame.eval_loss * (1 + 1e-12))])
    objective = laws.Objective(space="linear", huber=0.1, l1=1e-3)
    one, two, free = (
        laws.fit(t, objective=o, fix={"c": 0.472}, resampling=QUICK).law
        for t, o in ((frame, objective), (doubled, objective), (frame, laws.Objective(space="linear", huber=0.1)))
    )
    assert two.coefficients == pytest.approx(one.coefficients, rel=1e-5)
    assert sum(abs(np.log(one.coefficients[k])) for k in "gab") < sum(abs(np.log(free.coefficients[k])) for k in "gab")


def test_a_new_form_is_one_declaration(monkeypatch):
    monkeypatch.setattr(laws.forms, "FORMS", dict(laws.FORMS))

    @laws.declare(
        formula="E + B * D^-beta",
        source="this test",
        columns={"D": "tokens"},
        coefficients={"E": laws.positive(0.5, 3), "B": laws.positive(1, 1e5), "beta": laws.exponent()},
        published={"here": {"E": 1.5, "B": 500.0, "beta": 0.3}},
    )
    def data_only(D, E, B, beta):
        return E + B * laws.power(D, -beta)

    table = {"tokens": np.geomspace(1e8, 1e11, 12)}
    table, _ = planted("data_only", table, noise=1e-3)
    fitted = laws.fit(table, law="data_only", resampling=laws.Resampling(samples=100))
    assert fitted.law.form.formula == "E + B * D^-beta"
    assert fitted.law.coefficients["beta"] == pytest.approx(0.3, abs=0.05)
    value, low, high = fitted.law.predict({"D": 1e12})
    assert low < value < high


@pytest.mark.slow
def test_screening_abnar_s_starts_loses_nothing():
    """What is kept of the 437,400 starts must reach what a sample of them reaches when all of it is finished."""
    truth, rng = laws.published("abnar2025"), np.random.default_rng(0)
    S, N = rng.choice([0, 0.25, 0.5, 0.75, 0.9, 0.95], 60), np.exp(rng.uniform(np.log(2e8), np.log(2e10), 60))
    axes = {"N": N, "D": rng.choice([3e19, 1e20, 1e21], 60) / (6 * N * (1 - 0.75 * S)), "S": S}
    losses = truth.loss_at(axes) * np.exp(0.003 * rng.standard_normal(60))
    problem = Problem(truth.form, axes, losses, laws.Objective())
    paper = presets.preset("abnar2025").starts
    grid = starts.draw(truth.form, paper, {})
    assert len(grid) == 437_400
    sample = minimise(problem, grid[rng.permutation(len(grid))[:2048]]).value
    kept = minimise(problem, starts.choose(problem, paper, {})).value
    assert len(kept) == 8192
    assert kept.min() <= sample.min() * (1 + 1e-6)
    assert (kept <= kept.min() * (1 + 1e-6)).sum() > 40


@pytest.mark.slow
@needs_reference
def test_hoffmann_s_own_grid_reaches_besiroglu_s_objective():
    paper = presets.preset("besiroglu2024-grid")
    fitted = laws.fit(
        chinchilla_points(),
        law=paper.law,
        objective=paper.objective,
        start=paper.starts,
        split=laws.Split(drop=paper.drop),
        resampling=QUICK,
    )
    assert fitted.law.method.starts == 4500 and fitted.law.method.starts_at_best > 3500
    assert fitted.law.method.objective["value"] <= 0.0010182741
