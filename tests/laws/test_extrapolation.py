"""Bands beyond the data: rolling origins measure a form's own error, and predictions widen by it."""

import dataclasses

import numpy as np
import pytest

from moe_jax import errors, laws
from moe_jax.laws.extrapolation import Extrapolation, distance
from tests.hand_edits import change

FEW = laws.Resampling(samples=60)
BUDGETS = 6e18 * 3.0 ** np.arange(7)


def iso_flop(bend=0.0, noise=0.001, seed=0):
    """Seven sizes at seven budgets under chinchilla, with bend · (decades of compute)² nats that it lacks."""
    N = np.sqrt(BUDGETS[:, None] / 120) * np.geomspace(0.2, 5, 7)
    C = np.broadcast_to(BUDGETS[:, None], N.shape)
    table = {"n_total": N.ravel(), "tokens": (C / 6 / N).ravel(), "train_flops": C.ravel()}
    loss = laws.published("chinchilla", "besiroglu2024").loss_at(table)
    loss = loss + bend * np.log10(table["train_flops"] / BUDGETS[0]) ** 2
    return table | {"eval_loss": loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))}


def split(table, budgets=2):
    """(the cheaper rows, those of the top budgets)."""
    top = table["train_flops"] > BUDGETS[-budgets - 1] * 1.01
    return {k: v[~top] for k, v in table.items()}, {k: v[top] for k, v in table.items()}


def fit(table, **options):
    return laws.fit(table, "chinchilla", start=16, resampling=FEW, **options).law


def test_a_form_that_is_wrong_is_known_to_be():
    """Without drift the errors of rolling origins are noise; with it they give the term that lets bands cover."""
    right, wrong = (fit(split(iso_flop(bend))[0]) for bend in (0.0, 0.02))
    assert wrong.extrapolation.origins >= 2
    assert wrong.extrapolation.curvature > 5 * right.extrapolation.curvature
    dear = split(iso_flop(0.02))[1]
    bands = wrong.bands(dear)
    low, high = bands.together()
    covered = ((low <= dear["eval_loss"]) & (dear["eval_loss"] <= high)).mean()
    low, high = dataclasses.replace(bands, beyond=0 * bands.beyond).together()
    before = ((low <= dear["eval_loss"]) & (dear["eval_loss"] <= high)).mean()
    assert before < 0.3 and covered > 0.6


def test_the_term_is_that_of_the_distance_and_zero_within_the_data():
    cheap, dear = split(iso_flop(0.02))
    law = fit(cheap)
    assert (law.bands(cheap).beyond == 0).all()
    away = law.distance(dear)
    np.testing.assert_allclose(away, np.log(dear["train_flops"] / cheap["train_flops"].max()), rtol=1e-9)
    beyond = law.bands(dear).beyond
    assert (beyond > 0).all()
    grown = away * (away + np.log(3) * 4 / 2)  # five budgets fitted, each three times the one before
    np.testing.assert_allclose(beyond / beyond[0], grown / grown[0], rtol=1e-9)
    value, low, high = law.predict(dear)
    _, run_low, run_high = law.predict(dear, residual=True)
    assert (run_low < low).all() and (low < value).all() and (high < run_high).all()
    without = {k: v for k, v in dear.items() if k != "train_flops"}  # N * D in its place
    np.testing.assert_allclose(law.distance(without), away, rtol=1e-6)


def test_an_axis_beyond_its_range_is_a_distance_too():
    ranges, costs = {"N": (1e8, 1e9), "S": (0.0, 0.75)}, {"train_flops": np.array([1e20, 1e20, 1e20, 1e22])}
    axes = {"N": np.array([1e8, 1e10, 1e7, 1e9]), "S": np.array([0.5, 0.5, 0.5, 0.9375])}
    found = distance(costs, {"train_flops": 1e21}, axes, ranges, {"S"})
    np.testing.assert_allclose(found, np.log([1, 10, 10, 10]), atol=1e-12)


def test_few_origins_widen_the_term():
    """Student's t with more origins comes down to the normal's 1.2816 standard deviations."""
    one, two, many = (Extrapolation(0.01, n, 10, 1.0, 0.0, {}).half_width(1.0, 0.8) for n in (2, 3, 10_000))
    assert one == pytest.approx(0.01 * 3.0777, rel=1e-4) and two < one
    assert many == pytest.approx(0.01 * 1.2816, rel=1e-3)


def test_it_survives_law_json(tmp_path):
    cheap, dear = split(iso_flop(0.02))
    law = fit(cheap)
    law.save(tmp_path / "law.json")
    again = laws.load(tmp_path / "law.json")
    assert again.extrapolation == law.extrapolation
    np.testing.assert_array_equal(again.predict(dear, residual=True), law.predict(dear, residual=True))
    change(tmp_path / "law.json", extrapolation={"curvature": "wide"})
    with pytest.raises(errors.UserError, match=r"law.json is not a law.json of this program .*curvature is 'wide'"):
        laws.load(tmp_path / "law.json")


def test_a_fit_that_cannot_tell_says_so():
    """With two budgets the cheaper one cannot be fitted alone: the error is not known, and no term is made up."""
    table = iso_flop()
    two = {k: v[table["train_flops"] <= BUDGETS[1] * 1.01] for k, v in table.items()}
    law = laws.fit(two, "chinchilla", start=4, fix={"E": 1.8172}, resampling=laws.Resampling(samples=5)).law
    assert law.extrapolation is None and (law.bands(split(table)[1]).beyond == 0).all()
    assert laws.fit(table, "chinchilla", start=4, resampling=laws.Resampling(samples=0)).law.extrapolation is None
    assert laws.published("chinchilla").bands({"N": 1e12, "D": 1e13}).beyond == 0
