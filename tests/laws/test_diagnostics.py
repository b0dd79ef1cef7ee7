"""Diagnostics: profiles find the accepted range, leverage finds the odd run, comparison the law that made the data."""

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.cli import command, fit
from tests.fit_verb import call, runs
from tests.planted_laws import grid, planted
from tests.reference import needs_reference, table_3

FEW = laws.Resampling(samples=40)


@pytest.fixture(scope="module")
def fitted():
    table, _ = planted("krajewski2024", grid(4, 4), noise=0.003, seed=3)
    names = {"name": [f"r{i}" for i in range(80)]}
    return laws.fit({**names, **table}, objective=laws.Objective(huber=np.inf), resampling=FEW)


def test_a_profile_has_its_minimum_at_the_fit(fitted):
    best = fitted.law.coefficients["beta"]
    profile = laws.profile(fitted, "beta", best * np.array([0.7, 0.85, 1, 1.15, 1.3]), tries=4)
    assert profile["deviance"].idxmin() == 2 and abs(profile["deviance"][2]) < 1e-6
    assert (np.diff(profile["objective"][:3]) < 0).all() and (np.diff(profile["objective"][2:]) > 0).all()
    assert profile["objective"][2] == pytest.approx(fitted.law.method.objective["value"], rel=1e-9)
    for name in ("alpha", "b"):  # the others are refitted, and the row of the fit's own value is the fit
        assert profile[name][2] == pytest.approx(fitted.law.coefficients[name], rel=1e-3)
        assert profile[name].nunique() == 5


def test_profiles_accept_about_the_bootstrap_intervals(fitted):
    """For normal errors the two agree in width, within what 40 samples and a grid can tell."""
    low, high = fitted.law.intervals["alpha"]
    values = np.linspace(2 * low - high, 2 * high - low, 31)
    profile_low, profile_high = laws.accepted(laws.profile(fitted, "alpha", values, tries=1))
    assert 0.5 < (profile_high - profile_low) / (high - low) < 2


@needs_reference
def test_the_published_c_is_not_identified_by_its_data():
    fitted = laws.fit(
        table_3(),
        loss="final_train_loss",
        columns={"N": "N_total_nonemb", "D": "D_tokens", "G": "G"},
        objective=laws.Objective(space="linear", huber=0.1),
        resampling=laws.Resampling(samples=0),
    )
    low, high = laws.accepted(laws.profile(fitted, "c", [0.01, 0.1, 0.2, 0.472, 0.7, 0.8, 1.0, 1.3], tries=4))
    assert low <= 0.1 and 0.7 <= high < 1.3


def test_leverage_points_at_the_run_that_is_off():
    table, _ = planted("krajewski2024", grid(4, 4), noise=0.002)
    table["name"] = [f"r{i}" for i in range(80)]
    corner = int(np.argmin(table["n_total_nonemb"] * 1e3 + table["tokens"]))
    table["eval_loss"] = np.where(np.arange(80) == corner, table["eval_loss"] * 1.05, table["eval_loss"])
    fitted = laws.fit(table, fix={"c": 0.472}, objective=laws.Objective(huber=np.inf), resampling=FEW)
    found = laws.leverage(fitted)
    assert found["name"][0] == f"r{corner}" and found["residual"][0] > 0
    assert found["shift"][0] > 3 * found["shift"][1]
    assert [
        s
        for s in fitted.law.identifiability.warnings
        if s.startswith("One run makes") and f"without r{corner} it is" in s
    ]


def test_no_single_run_is_blamed_in_clean_data(fitted):
    assert not [s for s in fitted.law.identifiability.warnings if s.startswith("One run makes")]


def test_comparison_prefers_the_law_that_made_the_data():
    table, _ = planted("krajewski2024", grid(4, 4), noise=0.003)
    table["n_total"] = table["n_total_nonemb"]
    found = laws.compare(table, ["chinchilla", "krajewski2024"], resampling=FEW)
    assert list(found["law"]) == ["krajewski2024", "chinchilla"]
    assert found["rmse_holdout"][1] > 2 * found["rmse_holdout"][0]
    with pytest.raises(errors.UserError, match="needs runs that no form was fitted to"):
        laws.compare(table, ["krajewski2024"], split=laws.Split(drop="highest:1"))


def test_the_verb_shows_profiles_and_comparisons(tmp_path, capsys):
    table = runs().assign(n_total=lambda t: t.n_total_nonemb)
    flags = ["--huber", "inf", "--profile", "alpha", "--compare", "krajewski2024,chinchilla", "--leverage", "3"]
    flags += ["--figures", str(tmp_path / "figures")]
    assert call(tmp_path, table, *flags) == errors.DONE
    said = capsys.readouterr().out
    assert "profile of alpha: the data accept " in said
    assert "laws on the same runs, lowest:0.2 held out:" in said
    assert len(said.split("leverage: ")[1].split("laws on")[0].splitlines()) == 6  # two of words, the heads, three runs
    assert {"fit.png", "profile_alpha.png"} <= {p.name for p in (tmp_path / "figures").iterdir()}
    assert call(tmp_path, table, "--profile", "omega") == errors.BAD_INPUT
    assert "krajewski2024 has no coefficient 'omega'" in capsys.readouterr().err


def test_the_best_of_each_cell(tmp_path, capsys):
    """Three learning rates a cell: the lowest loss is kept, and it is said where the best is the largest tried."""
    table = runs()
    tried = [
        table.assign(name=table.name + f"-l{i}", learning_rate=lr, eval_loss=table.eval_loss + extra)
        for i, (lr, extra) in enumerate([(1e-3, 0.1), (2e-3, 0.0), (4e-3, 0.05)])
    ]
    tried[2].loc[:3, "eval_loss"] -= 0.1
    together = pd.concat(tried)
    kept = laws.fit(together, best_of="learning_rate", resampling=laws.Resampling(samples=0)).rows
    assert len(kept) == 36
    assert kept.table["learning_rate"].value_counts().to_dict() == {2e-3: 32, 4e-3: 4}
    assert call(tmp_path, together, "--best-of", "learning_rate") == errors.DONE
    said = "36 of 108 runs kept, the best learning_rate of each cell; in 4 cells it is the smallest or largest tried"
    assert said in capsys.readouterr().out


def test_another_table_by_columns_and_where(tmp_path):
    table = runs().rename(columns={"tokens": "Seen"})
    table["Compute"] = 6 * table.n_total_nonemb * table.Seen
    table.loc[0, "router"] = "other"
    table.to_csv(tmp_path / "their.csv", index=False)
    flags = ["--results", str(tmp_path / "their.csv"), "--bootstrap", "0", "--where", "router == 'expert_choice'"]
    flags += ["--columns", "tokens=Compute/(6*n_total_nonemb)"]
    assert command.run(fit.main, flags) == errors.DONE
    law = laws.load(tmp_path / "law.json")
    assert law.data.n_fit == 35 and law.data.range["tokens"] == (4e9, 1e11)
    assert "1 row of 36 left out by --where" in law.data.notes
    again, held_out = laws.rows_of(law, table)
    assert len(again) == 35 and not held_out.any()
