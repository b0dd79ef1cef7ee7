"""fit --figures: a folder with every picture of the law, as PNG and SVG, and a table of what explains the residuals."""

import numpy as np
import pandas as pd

from moe_jax import errors
from tests.fit_verb import call, runs

FIGURES = {"extrapolation", "fit", "frontier", "granularities", "isoflop_curves", "optimum", "residuals"}


def test_a_fit_draws_every_figure_and_says_what_explains_its_residuals(tmp_path, capsys):
    rate = np.random.default_rng(1).choice([1e-3, 4e-3], 36)
    table = runs().assign(learning_rate=rate, eval_loss=lambda t: t["eval_loss"] + np.where(rate > 2e-3, 0.05, 0))
    folder = tmp_path / "pictures"
    assert call(tmp_path, table, "--starts", "8", "--fix", "c=0.5", "--figures", str(folder)) == errors.DONE
    assert {p.name for p in folder.iterdir()} == {f"{n}.{kind}" for n in FIGURES for kind in ("png", "svg")} | {
        "residuals.csv"
    }
    said = capsys.readouterr().out
    assert f"figures: {folder} (" in said and "- no " not in said
    first = said[said.index("residuals: the share of their variance") :].splitlines()[2]
    assert first.split()[:2] == ["learning_rate", "no"]
    explained = pd.read_csv(folder / "residuals.csv")
    assert explained["column"][0] == "learning_rate" and explained["share"][0] > 0.5


def test_a_figure_that_a_law_does_not_have_is_named(tmp_path, capsys):
    table = runs().drop(columns="expansion_rate")
    folder = tmp_path / "pictures"
    assert call(tmp_path, table, "--starts", "4", "--fix", "c=0.5", "--figures", str(folder)) == errors.DONE
    said = capsys.readouterr().out
    assert "- no extrapolation, frontier, optimum, isoflop_curves, granularities: krajewski2024 does not say at" in said
    assert {p.stem for p in folder.glob("*.png")} == {"fit", "residuals"}
