"""law.json: a law survives its file, and predictions carry their intervals."""

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from tests.hand_edits import change, sealed_text


def fitted(samples=50):
    N, D, G = (x.ravel() for x in np.meshgrid([1e8, 3e8, 1e9, 3e9], [4e9, 2e10, 1e11], [1, 4, 16], indexing="ij"))
    loss = laws.published("krajewski2024").loss_at({"N": N, "D": D, "G": G})
    loss = loss + 0.01 * np.random.default_rng(0).standard_normal(loss.shape)
    table = {"n_total_nonemb": N, "tokens": D, "granularity": G, "eval_loss": loss}
    return laws.fit(table, fix={"c": 0.472}, resampling=laws.Resampling(samples=samples))


def test_a_law_survives_its_file(tmp_path):
    law = fitted().law
    law.save(tmp_path / "deep" / "law.json")
    again = laws.load(tmp_path / "deep" / "law.json")
    assert again.to_json() == law.to_json()
    point = {"N": 2e9, "D": 5e10, "G": 8}
    np.testing.assert_array_equal(again.predict(point), law.predict(point))
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == ["law.bootstrap.csv", "law.json"]


def test_samples_of_another_fit_are_not_believed(tmp_path):
    fitted().law.save(tmp_path / "law.json")
    with open(tmp_path / "law.bootstrap.csv", "a") as f:
        f.write("1,1,1,1,1,1,1\n")
    with pytest.raises(errors.UserError, match="was not written with"):
        laws.load(tmp_path / "law.json")
    fitted(samples=0).law.save(tmp_path / "law.json")
    assert not (tmp_path / "law.bootstrap.csv").exists()
    value, low, high = laws.load(tmp_path / "law.json").predict({"N": 2e9, "D": 5e10, "G": 8})
    assert np.isfinite(value) and np.isnan(low) and np.isnan(high)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", sealed_text({}), sealed_text({"law": "krajewski2024"})])
def test_a_damaged_law_is_refused(tmp_path, content):
    (tmp_path / "law.json").write_text(content)
    with pytest.raises(errors.UserError):
        laws.load(tmp_path / "law.json")


def test_predictions_broadcast_and_know_both_names():
    law = fitted().law
    N, G = np.geomspace(1e8, 1e10, 4)[:, None], np.array([1, 2, 4])
    value, low, high = law.predict({"N": N, "D": 2e10, "G": G})
    assert value.shape == low.shape == high.shape == (4, 3)
    assert (low < high).all() and (np.diff(value, axis=0) < 0).all() and (np.diff(value, axis=1) < 0).all()
    table = pd.DataFrame({"n_total_nonemb": [1e8, 1e9], "tokens": 2e10, "granularity": 4})
    np.testing.assert_array_equal(law.loss_at(table), law.loss_at({"N": [1e8, 1e9], "D": 2e10, "G": 4}))
    with pytest.raises(errors.UserError, match=r"krajewski2024 needs D \(column 'tokens'\)"):
        law.loss_at({"N": 1e9, "G": 4})


def test_the_interval_for_one_more_run_covers_such_runs():
    """With residual=True the central 80% must hold about 80% of runs that the fit never saw."""
    fit = fitted(samples=400)
    rng = np.random.default_rng(1)
    points = {
        "N": np.exp(rng.uniform(18.5, 21.8, 400)),
        "D": np.exp(rng.uniform(22.2, 25.3, 400)),
        "G": rng.integers(1, 17, 400),
    }
    measured = laws.published("krajewski2024").loss_at(points) + 0.01 * rng.standard_normal(400)
    _, low, high = fit.law.predict(points, residual=True)
    assert 0.7 < np.mean((low < measured) & (measured < high)) < 0.9
    _, inner_low, inner_high = fit.law.predict(points)
    assert np.mean((inner_low < measured) & (measured < inner_high)) < 0.5


def test_published_laws_need_no_fit():
    law = laws.published("krajewski2024")
    # Table 2's first row: 64x100M has 12 d² n_layers = 1e8 active and d² (8·64 + 4) n_layers = 4.3e9 in all
    assert law.loss_at({"N": 4.3e9, "D": 4.37e9, "G": 8}) == pytest.approx(3.133, abs=0.003)
    with pytest.raises(errors.UserError, match="has no published coefficients"):
        laws.published("krajewski2024", "E=8")


WRONG = (None, "seven", [1], {"a": [1]}, {"alpha": 1.0}, 10**400, True)


@pytest.mark.parametrize("key", ["coefficients", "intervals", "level", "errors", "columns", "loss", "range", "n_fit"])
def test_a_sealed_law_with_a_wrong_value_is_refused(tmp_path, key):
    fitted().law.save(tmp_path / "law.json")
    for wrong in WRONG:
        if key in ("columns", "loss", "errors") and wrong in ("seven", {"alpha": 1.0}):
            continue  # of the right type
        change(tmp_path / "law.json", **{key: wrong})
        with pytest.raises(errors.UserError, match=f"{key} is |coefficients are not|is damaged"):
            laws.load(tmp_path / "law.json")
