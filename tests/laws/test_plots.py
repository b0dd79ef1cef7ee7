"""Figures: they draw what they are given, without a display and without warnings."""

import dataclasses
import itertools
import re

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.laws import plots
from moe_jax.laws.plots import along_budgets, canvas
from moe_jax.laws.plots.figure_style import to_bytes
from tests.planted_laws import grid, planted, planted_runs

# Machado et al. (2009), severity 1, on linear RGB.
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.fixture(scope="module")
def fitted():
    table, _ = planted("krajewski2024", grid(4, 4), noise=0.005)
    rate = np.random.default_rng(0).choice([1e-4, 2e-4, 4e-4, 8e-4], 80)
    more = {
        "expansion_rate": 64.0,
        "learning_rate": rate,
        "eval_loss": table["eval_loss"] + 0.02 * np.log2(rate / 2e-4),
    }
    split = laws.Split(holdout="lowest:0.2")
    start = {k: [v] for k, v in laws.published("krajewski2024").coefficients.items()}
    return laws.fit(
        table | more, fix={"c": 0.5}, split=split, start=start, resampling=laws.Resampling(samples=20)
    )  # fmt: skip


def points(ax):
    return sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() not in ("None", None, ""))


def test_every_run_is_drawn_in_every_panel(fitted):
    figure = plots.fit(fitted)
    assert [points(ax) for ax in figure.axes] == [80, 80, 80, 80]
    labels = {t.get_text() for t in figure.legends[0].get_texts()}
    assert labels == {"fitted (64)", "held out (16)", f"± RMSE of the fit, {fitted.law.errors['rmse_fit']:.4f}"}


def test_a_profile_shades_what_is_accepted(fitted):
    table = laws.profile(fitted, "alpha", fitted.law.coefficients["alpha"] * np.linspace(0.8, 1.2, 9), tries=1)
    ax = plots.profile(table, "alpha").axes[0]
    assert ax.get_xlabel() == "alpha" and len(ax.lines[0].get_xdata()) == 9 and ax.collections


def test_optima_carry_their_intervals_and_mark_extrapolation(fitted):
    planner = laws.Planner(fitted.law, choices=laws.Choices(expansion_rates=[64], granularities=(1, 4, 16)))
    plans = [planner.best(C) for C in (1e17, 7e18, 1e24)]
    assert len({p.values["granularity"] for p in plans}) > 1
    figure = plots.optimum(plans)
    assert [len(ax.collections) for ax in figure.axes] == [1, 1, 1, 1]
    assert [bool(p.outside) for p in plans] == [True, False, True]
    labels = {t.get_text() for t in figure.legends[0].get_texts()}
    assert labels == {"within the fitted range", "extrapolated", "interval of the law"}
    coarse = laws.Planner(fitted.law, choices=laws.Choices(expansion_rates=[64], granularities=[4]))
    assert "granularity G" not in [a.get_ylabel() for a in plots.optimum([coarse.best(1e20), coarse.best(1e21)]).axes]


@pytest.mark.parametrize(
    "name", ["fit", "residuals", "extrapolation", "frontier", "optimum", "isoflop_curves", "granularities"]
)
def test_every_figure_of_a_fit_has_labels_that_do_not_overlap(fitted, name):
    figure = plots.every(fitted)[name]()
    png, svg = to_bytes(figure, "png"), to_bytes(figure, "svg")
    assert png.startswith(b"\x89PNG") and b"<svg" in svg and to_bytes(plots.every(fitted)[name](), "svg") == svg
    for ax in figure.axes:
        assert ax.get_xlabel()
        ticks = [t.get_window_extent() for t in ax.get_xticklabels() if t.get_text()]
        ticks = sorted((t for t in ticks if t.x1 > t.x0), key=lambda box: box.x0)
        assert len(ticks) >= 2
        assert all(a.x1 <= b.x0 for a, b in itertools.pairwise(ticks)), name
    whole = figure.bbox
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0


def test_a_law_without_g_has_no_contours_over_it_and_one_without_a_plan_says_so():
    table, _ = planted_runs(laws.get("chinchilla"), 30, 0.003)
    fitted = laws.fit(table, "chinchilla", start=4, resampling=laws.Resampling(samples=0))
    assert "granularities" not in plots.every(fitted)
    with pytest.raises(errors.UserError, match="chinchilla has no G"):
        plots.granularities(fitted)
    table, _ = planted("krajewski2024", grid(3, 3), noise=0.005)
    unknown = laws.fit(table, fix={"c": 0.5}, start=4, resampling=laws.Resampling(samples=0))
    with pytest.raises(errors.UserError, match="at which expansion rate"):
        plots.extrapolation(unknown)


def test_the_frontier_follows_the_planner_and_the_flops_of_runs_follow_the_formula(fitted):
    """N of a plan -> its FLOPs a token, by the inverse of the planner's shapes."""
    planner = along_budgets.planner_of(along_budgets.without_samples(fitted.law))
    plans = along_budgets.plans(planner, [1e19, 1e21])
    axes = along_budgets.axes_of(fitted.law, plans)
    per_token = along_budgets.flops_per_token(planner, {k: axes[k] for k in ("N", "G")})
    assert per_token * axes["D"] == pytest.approx([1e19, 1e21], rel=1e-3)
    runs = along_budgets.runs_of(fitted, planner)
    assert runs.measured == "" and (runs.flops > 0).all()
    named = dataclasses.replace(fitted.rows, table=fitted.rows.table.assign(flops_krajewski2024=runs.flops * 2))
    read = along_budgets.runs_of(dataclasses.replace(fitted, rows=named), planner)
    assert read.measured == "flops_krajewski2024" and read.flops == pytest.approx(runs.flops * 2)


def test_the_column_behind_the_residuals_is_named(fitted):
    table = laws.explain_residuals(fitted)
    assert table["column"][0] == "learning_rate" and table["share"][0] > 0.4 and table["p"][0] < 1e-6
    assert table["symbol"][0] == "" and table["spearman"][0] > 0.7
    inside = table[table["symbol"] != ""]
    assert sorted(inside["symbol"]) == ["D", "G", "N"] and (inside["share"] < 0.15).all()
    titles = [ax.get_title() for ax in plots.residuals(fitted, table).axes]
    assert titles[3].startswith("not in the law, explains") and len(titles) == 4


def test_columns_that_mean_nothing_are_rarely_said_to_explain():
    """Residuals of noise alone: of 40 tables with five columns each, about 2 have one below p = .05."""
    table, _ = planted_runs(laws.get("chinchilla"), 40, 0.004)
    fitted = laws.fit(table, "chinchilla", start=2, resampling=laws.Resampling(samples=0))
    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame(table)
        for i in range(3):
            frame[f"x{i}"] = rng.standard_normal(40)
        frame["depth"], frame["schedule"] = rng.integers(2, 6, 40), rng.choice(["wsd", "cosine", "linear"], 40)
        frame["name"], frame["train_loss"] = [f"r{i}" for i in range(40)], frame["eval_loss"]
        rows = dataclasses.replace(fitted.rows, table=frame)
        noise = dataclasses.replace(fitted, rows=rows, predicted=fitted.rows.losses - rng.standard_normal(40))
        found = laws.explain_residuals(noise)
        assert set(found["column"]) == {"n_total", "tokens", "x0", "x1", "x2", "depth", "schedule"}
        hits += bool((found["p"] < 0.05).any())
    assert hits <= 7, hits


def test_a_twin_of_an_axis_is_marked(fitted):
    frame = fitted.rows.table.assign(d_model=np.sqrt(fitted.rows.columns["N"]))
    found = laws.explain_residuals(dataclasses.replace(fitted, rows=dataclasses.replace(fitted.rows, table=frame)))
    assert found.set_index("column")["moves_with"]["d_model"] == "N"
    assert "d_model" not in [ax.get_xlabel() for ax in plots.residuals(fitted).axes]


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_colour_blind_readers_tell_the_colours_apart(deficiency):
    seen = [_lab(_simulated(colour, deficiency)) for colour in (canvas.BLUE, canvas.ORANGE, canvas.GREEN, "#ffffff")]
    apart = [np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[i + 1 :]]
    assert min(apart) > 15, apart  # 2.3 is just noticeable
    shades = ["#" + bytes(round(255 * v) for v in shade[:3]).hex() for shade in canvas.shades(6)]
    ordered = [_lab(_simulated(shade, deficiency)) for shade in shades]
    assert (np.diff([c[0] for c in ordered]) > 5).all()  # each lighter than the one before


def _simulated(colour, deficiency):
    rgb = np.array([int(h, 16) for h in re.findall("..", colour[1:])]) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.clip(np.array(DEFICIENCIES[deficiency]) @ linear, 0, 1)


def _lab(linear):
    """CIE Lab of linear sRGB, D65."""
    M = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    t = M @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])
