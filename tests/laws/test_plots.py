"""Figures: they draw what they are given, without a display and without warnings."""

import numpy as np
import pytest

from moe_jax import laws
from moe_jax.laws import plots
from tests.planted_laws import grid, planted


@pytest.fixture(scope="module")
def fitted():
    table, _ = planted("krajewski2024", grid(4, 4), noise=0.005)
    split = laws.Split(holdout="lowest:0.2")
    return laws.fit(table, fix={"c": 0.5}, split=split, resampling=laws.Resampling(samples=20))


def points(ax):
    return sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() not in ("None", None, ""))


def test_every_run_is_drawn_in_every_panel(fitted, tmp_path):
    figure = plots.fit(fitted)
    assert [points(ax) for ax in figure.axes] == [80, 80, 80, 80]
    labels = {t.get_text() for t in figure.legends[0].get_texts()}
    assert labels == {"fitted (64)", "held out (16)", f"± RMSE of the fit, {fitted.law.errors['rmse_fit']:.4f}"}
    figure.savefig(tmp_path / "fit.png")
    assert (tmp_path / "fit.png").stat().st_size > 10_000


def test_a_profile_shades_what_is_accepted(fitted):
    table = laws.profile(fitted, "alpha", fitted.law.coefficients["alpha"] * np.linspace(0.8, 1.2, 9), tries=1)
    ax = plots.profile(table, "alpha").axes[0]
    assert ax.get_xlabel() == "alpha" and len(ax.lines[0].get_xdata()) == 9 and ax.collections


def test_optima_carry_their_intervals_and_mark_extrapolation(fitted):
    planner = laws.Planner(fitted.law, choices=laws.Choices(expansion_rates=[64]))
    plans = [planner.best(C) for C in (1e19, 1e21, 1e24)]
    figure = plots.optimum(plans)
    assert [len(ax.collections) for ax in figure.axes] == [1, 1, 1]
    assert [bool(p.outside) for p in plans] == [False, True, True]
    labels = [t.get_text() for t in figure.axes[-1].get_legend().get_texts()]
    assert labels == ["within the fitted range", "extrapolated"]
