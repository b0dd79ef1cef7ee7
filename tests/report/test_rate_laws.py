"""The report's section of laws of learning rates: a sweep of rates whose best are known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from moe_jax import errors, laws
from moe_jax.cli import collect, report
from moe_jax.config import grid
from moe_jax.laws import rate_figure
from moe_jax.report.sections import runs
from tests import synthetic_sweep as synthetic
from tests.pages import Reader, assert_nothing_overlaps

RATES = [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A finished sweep of rates, with step_law_lr.json beside its results."""
    cells = synthetic.cells(widths=[16, 32, 64], tokens=[96_000, 192_000], granularities=[1])
    cells = grid.product(cells, grid.axis("optim.learning_rate", RATES))
    work, planned = synthetic.make(tmp_path_factory.mktemp("rates") / "w", cells)
    noise = np.random.default_rng(0)
    for run in planned:
        best = 25 * run.counts.n_total_nonemb**-0.5 * run.counts.tokens**-0.2
        loss = 2.5 + 0.05 * math.log(run.config.optim.learning_rate / best) ** 2 + 2e-3 * noise.standard_normal()
        synthetic.finish(work, run, synthetic.result_of(run, eval_loss=loss))
    assert collect.main(["--workdir", str(work.path)]) == errors.DONE
    fitted = laws.fit(
        str(work.path / "results.csv"), law="step_law_lr", start=8, resampling=laws.Resampling(samples=20)
    )
    fitted.law.save(work.path / "step_law_lr.json")
    return work, fitted


def page_of(work):
    assert report.main(["--workdir", str(work.path)]) == errors.DONE
    return Reader((work.path / "report.html").read_text()).text


def test_the_page_has_the_law_of_rates_and_its_figure(swept):
    work, fitted = swept
    assert len(fitted.rows) == 6  # every cell encloses its best
    page = page_of(work)
    assert "Learning rates and batches" in page and "step_law_lr : learning_rate = " in page
    assert f"{fitted.law.coefficients['b']:.4g}" in page and "6 cells of 6 with a best learning_rate" in page
    assert "measured beside" not in page and "There is no law.json yet" in page
    assert (work.path / "figures" / "rates_step_law_lr.png").exists()


def test_two_laws_of_one_form_have_a_figure_each(swept):
    """As `fit --group_by` writes them."""
    work, _ = swept
    small = laws.fit(
        str(work.path / "results.csv"), law="step_law_lr", fix={"c": -0.2}, where="d_model < 64", start=8,
        resampling=laws.Resampling(samples=0),
    )  # fmt: skip
    small.law.save(work.path / "step_law_lr-small.json")
    try:
        page = page_of(work)
        assert "step_law_lr.json; N is" in page and "step_law_lr-small.json; N is" in page
        drawn = [(work.path / "figures" / f"rates_step_law_lr{name}.png").read_bytes() for name in ("", "-small")]
        assert drawn[0] != drawn[1]
    finally:
        (work.path / "step_law_lr-small.json").unlink()


def test_the_rules_of_a_sweep_stand_beside_its_flags(swept):
    """The flags that it was made with do not name them."""
    work, _ = swept
    manifest = work.existing_manifest()
    rule = {"optim.learning_rate": {"law": "step_law_lr", "source": "rates.json", "sha256": "0" * 64}}
    ruled = replace(manifest, runs=tuple(replace(run, rules=rule) for run in manifest.runs))
    facts = {fact.name: fact.value for fact in runs.setup(ruled, [], None)}
    assert facts["rules"] == "optim.learning_rate by step_law_lr (rates.json)"
    assert "rules" not in {fact.name for fact in runs.setup(manifest, [], None)}


def test_a_damaged_law_of_rates_is_named(swept):
    work, _ = swept
    other = work.path / "other.json"
    stored = json.loads((work.path / "step_law_lr.json").read_text())
    other.write_text(json.dumps({**stored, "n_fit": 7}))
    try:
        assert "other.json: is damaged" in page_of(work)
    finally:
        other.unlink()


def test_a_law_of_rates_in_the_place_of_the_law_of_losses_is_refused(swept, capsys):
    work, fitted = swept
    fitted.law.save(work.path / "law.json")
    try:
        with pytest.raises(errors.WorkFailed, match="without a law: step_law_lr gives a learning rate"):
            report.main(["--workdir", str(work.path)])
    finally:
        (work.path / "law.json").unlink()


def test_the_figure_has_a_point_for_each_cell_and_the_errors_of_the_fit(swept):
    _, fitted = swept
    figure = rate_figure.best_values(fitted)
    first, N, D = figure.axes
    points = first.lines[-1]
    np.testing.assert_array_equal(points.get_xdata(), fitted.predicted)
    np.testing.assert_array_equal(points.get_ydata(), fitted.rows.losses)
    for ax, symbol in ((N, "N"), (D, "D")):
        np.testing.assert_array_equal(ax.lines[-1].get_xdata(), fitted.rows.columns[symbol])
        errors = ax.lines[-1].get_ydata()
        assert np.sqrt((errors**2).mean()) == pytest.approx(fitted.law.errors["rmse_fit"])
    assert_nothing_overlaps(figure)
