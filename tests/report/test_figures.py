"""figures: what is drawn is what was measured, labelled, and nothing lies on anything else."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from moe_jax import laws
from moe_jax.laws.plots.figure_style import style, to_bytes
from moe_jax.report import figures, findings
from moe_jax.report.loss_curves import Curve, loss_curves
from moe_jax.sweep import results
from moe_jax.sweep.run_state import State
from tests import synthetic_sweep as synthetic
from tests.pages import assert_nothing_overlaps

KRAJEWSKI = synthetic.cells(
    widths=[16, 24, 32, 40, 48], tokens=[16_000, 33_000, 66_000, 131_000], granularities=[1, 2, 4, 8]
)
GRIDS = {
    "smoke": synthetic.cells(),
    "wide": KRAJEWSKI,
    "one cell": synthetic.cells(widths=[16], tokens=[96_000], granularities=[2]),
    "a cell a panel": synthetic.cells(widths=[16], tokens=[96_000]),
    "with dense": [*synthetic.cells(tokens=[96_000]), *({"moe": None, "model.d_model": d} for d in (16, 32))],
    "many tokens": synthetic.cells(tokens=[20_000 + 9_000 * i for i in range(9)]),
}


@pytest.fixture
def law():
    """The planted law with an interval of ±1% around its c."""
    planted = laws.published("krajewski2024")
    samples = {name: np.full(41, value) for name, value in synthetic.LAW.items()}
    samples["c"] = synthetic.LAW["c"] * np.linspace(0.99, 1.01, 41)
    return dataclasses.replace(planted, coefficients=synthetic.LAW, samples=samples, errors={"rmse_fit": 0.01})


def grid_of(tmp_path, cells):
    work, planned = synthetic.make(tmp_path / "w", cells)
    for run in planned:
        folder, _ = synthetic.begin(work, run)
        folder.write_result(synthetic.result_of(run))
    return findings.measured_cells([results.row_of_run(run, work.run_dir(run.name)) for run in planned])


def drawn(ax, *, markers):
    """The (x, y) of an axes' lines that are markers, or of those that are not."""
    return [line.get_xydata() for line in ax.lines if (line.get_marker() == "o") == markers]


def all_figures(grid, law):
    for axis in findings.AXES:
        yield figures.loss_against(grid, axis, law)
    if findings.granularity_effects(grid):
        yield figures.granularity_effect(grid, law)


@pytest.mark.parametrize(("cells", "with_law"), [("smoke", False), *((cells, True) for cells in GRIDS)])
def test_every_point_is_shown_every_axis_named_and_nothing_overlaps(tmp_path, law, cells, with_law):
    grid = grid_of(tmp_path, GRIDS[cells])
    for figure in all_figures(grid, law if with_law else None):
        assert_nothing_overlaps(figure)
        assert "nats" in figure.get_supylabel() and figure.get_supxlabel()
        assert figure.legends and 1 <= len(figure.axes) <= 6
        for ax in figure.axes:
            assert ax.get_title()
            (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
            assert all(x0 <= x <= x1 and y0 <= y <= y1 for points in drawn(ax, markers=True) for x, y in points)


def test_points_are_the_losses_and_curves_the_law(tmp_path, law):
    grid = grid_of(tmp_path, None)
    figure = figures.loss_against(grid, "N", law)
    assert [ax.get_title() for ax in figure.axes] == ["G = 1", "G = 2", "G = 4"]
    for ax, G in zip(figure.axes, (1, 2, 4), strict=True):
        measured = {(cell.N, cell.loss) for cell in grid if cell.G == G}
        assert {(x, y) for points in drawn(ax, markers=True) for x, y in points} == measured
        curves = drawn(ax, markers=False)
        assert len(curves) == 3
        for curve in curves:  # the planted law goes through the losses, which it made
            for N, loss in curve[[0, -1]]:
                assert min(abs(loss - cell.loss) for cell in grid if cell.G == G and round(N) == cell.N) < 1e-9
        bands = [band.get_paths()[0].vertices[:, 1] for band in ax.collections]
        assert len(bands) == 3
        for band, curve in zip(bands, curves, strict=True):
            assert band.max() - curve[:, 1].max() == pytest.approx(0.008 * synthetic.LAW["c"], rel=0.01)
        assert ax.get_xscale() == ax.get_yscale() == "log"
        assert [t.get_text() for t in ax.get_xticklabels()] == ["34.8k", "139k", "557k"]


def test_without_a_law_lines_join_the_cells(tmp_path):
    grid = grid_of(tmp_path, None)
    figure = figures.loss_against(grid, "D", None)
    assert len(figure.axes) == 3
    for ax in figure.axes:
        lines = drawn(ax, markers=False)
        assert len(lines) == 3
        assert all(len(line) == 3 and (np.diff(line[:, 1]) < 0).all() for line in lines)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["N = 34.8k", "N = 139k", "N = 557k"]


def test_the_effect_of_g_starts_at_zero(tmp_path, law):
    grid = grid_of(tmp_path, None)
    figure = figures.granularity_effect(grid, law)
    assert len(figure.axes) == 3
    for ax in figure.axes:
        points = drawn(ax, markers=True)
        assert len(points) == 3 and all(p[0, 1] == 0 and (p[1:, 1] < 0).all() for p in points)
        curves = [c for c in drawn(ax, markers=False) if len(c) > 2]
        assert all(c[0, 1] == 0 and c[-1, 1] == pytest.approx(p[-1, 1]) for c, p in zip(curves, points, strict=True))


def test_a_law_of_other_columns_is_drawn_along_n(tmp_path):
    """chinchilla's N counts embeddings too; along the grid's N it goes with it."""
    grid = grid_of(tmp_path, None)
    figure = figures.loss_against(grid, "N", laws.published("chinchilla"))
    law = laws.published("chinchilla")
    assert len(figure.axes) == 3
    for ax in figure.axes:
        curves = drawn(ax, markers=False)
        assert len(curves) == 3
        for curve in curves:
            for N, loss in curve[[0, -1]]:
                of = [float(law.predict(cell.rows[0])[0]) for cell in grid if round(N) == cell.N]
                assert min(abs(loss - value) for value in of) < 1e-9


def test_where_the_law_is_not_defined_no_curve_is_drawn(tmp_path, law):
    grid = grid_of(tmp_path, [{"moe": None, "model.d_model": d} for d in (16, 32, 64)])
    figure = figures.loss_against(grid, "N", law)
    (ax,) = figure.axes
    assert drawn(ax, markers=False) == [] and sum(map(len, drawn(ax, markers=True))) == 3
    assert ax.get_title() == "dense"
    with pytest.raises(ValueError, match="no cell has a G"):
        figures.loss_against(grid, "G", law)
    with pytest.raises(ValueError, match=r"no \(N, D\) has two G"):
        figures.granularity_effect(grid, law)


def test_curves_end_in_what_became_of_the_run():
    steps = np.arange(1, 200) * 1000.0
    losses = 5.5 * steps**-0.05

    def curve(state, eval_loss):
        return Curve(35_000, 96_000, 2, steps, losses, State(state), eval_loss)

    figure = loss_curves([curve("done", 2.9), curve("diverged", None), curve("running", None)])
    assert_nothing_overlaps(figure)
    (ax,) = figure.axes
    ends = {line.get_marker(): tuple(line.get_xydata()[-1]) for line in ax.lines if len(line.get_xydata()) == 1}
    assert ends == {"o": (steps[-1], 2.9), "x": (steps[-1], losses[-1])}
    assert "diverged" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_smoothing_keeps_a_straight_line_and_halves_noise():
    steps = np.arange(1, 400) * 1000.0
    noise = np.random.default_rng(0).standard_normal(len(steps))
    for losses, most in ((np.full(len(steps), 3.0), 1e-9), (3 + 0.1 * noise, 0.05)):
        figure = loss_curves([Curve(35_000, 96_000, None, steps, losses, State.RUNNING, None)])
        smooth = figure.axes[0].lines[1].get_ydata()
        assert len(smooth) == len(steps)
        assert np.std(smooth[50:] - 3.0) <= most


def test_residuals_are_measured_less_predicted_and_held_out_runs_hollow(tmp_path, law):
    """The fit's figure belongs to laws.plots; here it is drawn in the page's style, with the page's labels."""
    work, planned = synthetic.make(tmp_path / "w")
    for i, run in enumerate(planned):
        loss = synthetic.planned_loss(run) + 0.01 * np.sin(i)
        synthetic.finish(work, run, synthetic.result_of(run, eval_loss=loss))
    table = pd.DataFrame([results.row_of_run(run, work.run_dir(run.name)) for run in planned])
    selection = {"columns": {}, "where": "", "best_of": "", "drop": "", "holdout": "lowest:3"}
    law = dataclasses.replace(law, data=dataclasses.replace(law.data, selection=selection))
    rows, held_out = laws.rows_of(law, table)
    with style():
        figure = laws.plots.fit(
            laws.Fit(law, rows, held_out, law.loss_at(rows.columns), laws.Objective()), findings.LABELS
        )
    assert_nothing_overlaps(figure)
    misses = rows.losses - law.loss_at(rows.columns)
    assert held_out.sum() == 3 and np.abs(misses).max() > 0.009
    for ax, symbol in zip(figure.axes[1:], "NDG", strict=True):
        fitted, hollow = (line for line in ax.lines if line.get_marker() == "o")
        points = np.stack([rows.columns[symbol], misses], 1)
        np.testing.assert_allclose(fitted.get_xydata(), points[~held_out])
        np.testing.assert_allclose(hollow.get_xydata(), points[held_out])
        assert hollow.get_markerfacecolor() == "white" and ax.get_xlabel() == findings.LABELS[symbol]
        assert ax.get_ylim()[1] > np.abs(misses).max()


def test_the_same_data_give_the_same_bytes(tmp_path, law):
    grid = grid_of(tmp_path, None)
    for kind in ("svg", "png"):
        first, second = (to_bytes(figures.loss_against(grid, "N", law), kind) for _ in range(2))
        assert first == second and len(first) > 1000
