"""Held-out runs by a condition, and cross-validation by groups and folds."""

import numpy as np
import pytest

from moe_jax import errors, laws
from tests.fit_verb import call, runs
from tests.planted_laws import QUICK, grid, planted

FIX = {"c": 0.472}


def test_a_condition_holds_runs_out():
    table = runs().assign(budget=lambda t: 6 * t.n_total_nonemb * t.tokens)
    fitted = laws.fit(table, fix=FIX, split=laws.Split(holdout="budget > 1e20"), resampling=QUICK)
    np.testing.assert_array_equal(fitted.held_out, table["budget"] > 1e20)
    by_symbol = laws.fit(table, fix=FIX, split=laws.Split(holdout="N > 1e9 and D > 5e10"), resampling=QUICK)
    np.testing.assert_array_equal(by_symbol.held_out, (table.n_total_nonemb > 1e9) & (table.tokens > 5e10))
    again, held_out = laws.rows_of(by_symbol.law, table)
    assert len(again) == len(table) and held_out.sum() == by_symbol.law.data.n_holdout


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("tokens > 1", "--holdout tokens > 1: all rows meet it"),
        ("tokens < 1", "--holdout tokens < 1: no rows meet it"),
        ("budget > 1", "--holdout: there is no column 'budget'"),
        ("tokens > ", "--holdout cannot be read"),
        ("tokens", "--holdout is 'tokens', must be lowest:N, highest:N or COLUMN:VALUE"),
    ],
)
def test_a_bad_condition_is_refused(rule, said):
    with pytest.raises(errors.UserError, match=said):
        laws.fit(runs(), fix=FIX, split=laws.Split(holdout=rule), resampling=QUICK)


@pytest.fixture(scope="module")
def fitted():
    table, _ = planted("krajewski2024", grid(4, 4), noise=0.003)
    return laws.fit(table, fix=FIX, start=16, resampling=QUICK)


def test_each_group_is_predicted_by_a_fit_without_it(fitted):
    found = laws.cross_validate(fitted, "group:granularity")
    assert list(found.folds["fold"]) == ["1", "2", "4", "8", "16"] and list(found.folds["runs"]) == [16] * 5
    table = fitted.rows.table
    by_hand = laws.fit(table, fix=FIX, start=16, split=laws.Split(holdout="granularity == 16"), resampling=QUICK)
    assert found.folds["rmse"].iloc[-1] == pytest.approx(by_hand.law.errors["rmse_holdout"], rel=1e-5)
    assert found.folds["mean"].iloc[-1] == pytest.approx(by_hand.law.errors["mean_holdout"], rel=1e-4)
    assert found.folds["alpha"].iloc[-1] == pytest.approx(by_hand.law.coefficients["alpha"], rel=1e-5)
    assert found.rmse == pytest.approx(np.sqrt(np.mean(found.folds["rmse"] ** 2)))
    spread = found.coefficients.set_index("coefficient")["spread"]
    assert spread["c"] == 0 and spread["beta"] > 0


def test_folds_divide_the_runs_and_keep_repeated_runs_together(fitted):
    found = laws.cross_validate(fitted, "7")
    assert found.folds["runs"].sum() == 80 and found.folds["runs"].max() - found.folds["runs"].min() <= 1
    assert 0.7 < found.rmse / fitted.law.errors["rmse_fit"] < 1.5
    table, _ = planted("krajewski2024", {k: np.tile(v, 2) for k, v in grid(4, 4).items()}, noise=0.003)
    twice = laws.fit(table, fix=FIX, start=16, resampling=QUICK)
    assert (laws.cross_validate(twice, "7").folds["runs"] % 2 == 0).all()


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("some", "must be a number of folds or group:COLUMN"),
        ("1", "80 different points can be divided into 2 to 80 folds"),
        ("group:colour", "there is no column 'colour'"),
        ("group:c", "there is no column 'c'"),
    ],
)
def test_a_rule_that_makes_no_folds_is_refused(fitted, rule, said):
    with pytest.raises(errors.UserError, match=said):
        laws.cross_validate(fitted, rule)


def test_the_verb_cross_validates(tmp_path, capsys):
    assert call(tmp_path, runs(), "--fix", "c=0.472", "--cross_validate", "group:tokens") == errors.DONE
    said = capsys.readouterr().out
    assert "cross-validation, group:tokens: each fold predicted by the fit without it" in said
    assert len([line for line in said.splitlines() if line.strip().startswith(("4e+09", "2e+10", "1e+11"))]) == 3


def test_criteria_prefer_the_form_that_made_the_data_and_count_coefficients():
    """A superfluous coefficient costs about 2 (AIC) and ln n (BIC) against the form without it."""
    table, _ = planted("krajewski2024", grid(4, 4), noise=0.003)
    table["n_total"] = table["n_total_nonemb"]
    normal = laws.Objective(huber=np.inf)
    options = {"objective": normal, "resampling": QUICK, "start": 16, "fix": {"krajewski2024": FIX}}
    found = laws.compare(table, ["chinchilla", "krajewski2024"], **options).set_index("law")
    assert found.loc["krajewski2024", "aic"] == found.loc["krajewski2024", "bic"] == 0
    assert found.loc["chinchilla", "aic"] > 50
    k = found["coefficients"]
    assert k["krajewski2024"] == k["chinchilla"] + 1  # for which BIC counts ln n and AIC 2
    assert found.loc["chinchilla", "bic"] == pytest.approx(found.loc["chinchilla", "aic"] - (np.log(64) - 2))


def test_the_verb_takes_a_condition_and_a_one_sided_loss(tmp_path, capsys):
    flags = ["--fix", "c=0.472", "--holdout", "tokens > 5e10", "--one_sided", "0.5"]
    assert call(tmp_path, runs(), *flags) == errors.DONE
    assert "held out (12 runs)" in capsys.readouterr().out
    law = laws.load(tmp_path / "law.json")
    assert law.method.objective["one_sided"] == 0.5 and law.data.selection["holdout"] == "tokens > 5e10"
    assert law.extrapolation.reach["N * D"] == 3e9 * 2e10
    assert call(tmp_path, runs(), "--one_sided", "2") == errors.BAD_INPUT
    assert "one_sided is 2.0" in capsys.readouterr().err
