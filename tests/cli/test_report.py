"""report: one page that shows what the runs are, whatever stands in their files and however far they are."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from moe_jax import laws
from moe_jax.cli import collect, command, report
from moe_jax.errors import UserError, WorkFailed
from moe_jax.report.reading import read
from moe_jax.sweep.manifest import StoreIdentity
from moe_jax.sweep.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.hand_edits import sealed_text
from tests.pages import Reader, read_page

SMALL = synthetic.cells(widths=[16, 32], tokens=[96_000, 192_000], granularities=[1, 2])
EVIL = '"><script>alert(1)</script><img src=http://x.example/y onerror=alert(2)>&$x_{$'


def make_report(work):
    assert report.main(["--workdir", str(work.path)]) == 0
    return Reader((work.path / "report.html").read_text())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A finished sweep with noise on its losses, and the law fitted to it."""
    work, planned = synthetic.make(tmp_path_factory.mktemp("fitted") / "w")
    rng = np.random.default_rng(0)
    for run in planned:
        noisy = synthetic.planned_loss(run) + 0.004 * rng.standard_normal()
        synthetic.finish(work, run, synthetic.result_of(run, eval_loss=noisy))
    assert collect.main(["--workdir", str(work.path)]) == 0
    split, few = laws.Split(holdout="lowest:3"), laws.Resampling(samples=40)
    law = laws.fit(str(work.path / "results.csv"), start=16, split=split, resampling=few).law
    law.save(work.path / "law.json")
    return work, law


def test_the_page_shows_runs_the_law_and_what_is_not_identified(fitted, capsys):
    work, law = fitted
    shown = make_report(work)
    for run in work.existing_manifest().runs:
        assert run.name in shown.text
    assert "Losses fall with N in 18 of 18 neighbouring pairs and with D in 18 of 18" in shown.text
    for name, value in law.coefficients.items():
        assert f"{value:.4g}" in shown.text, name
    low, high = law.intervals["alpha"]
    assert f"{low:.4g} … {high:.4g}" in shown.text
    assert law.identifiability.unidentified and all(said in shown.text for said in law.identifiability.warnings)
    for name in ("rmse_fit", "rmse_holdout", "max_fit"):
        assert f"{law.errors[name]:.4f}" in shown.text
    assert "2.076" in shown.text  # the published g
    assert "RMSE of the 3 runs held out" in shown.text
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith(f"report: {work.path / 'report.html'} (6 figures")


def test_the_page_needs_nothing_but_itself(fitted):
    work, _ = fitted
    shown = make_report(work)
    assert all(link.startswith(("data:image/svg+xml;base64,", "#")) for link in shown.links)
    assert "script" not in shown.tags and "link" not in shown.tags and "iframe" not in shown.tags
    images = [link for link in shown.links if link.startswith("data:")]
    saved = sorted(path.name for path in (work.path / "figures").iterdir())
    assert saved == sorted(
        ["fit.png", "granularity.png", "loss_curves.png", *(f"loss_against_{axis}.png" for axis in "NDG")]
    )
    assert len(images) == len(saved)
    assert all((work.path / "figures" / name).read_bytes().startswith(b"\x89PNG") for name in saved)
    ids = [link for link in shown.links if link.startswith("#")]
    assert len(ids) == len(set(ids)) >= 7


def test_residuals_are_those_of_the_fit(fitted):
    work, law = fitted
    fit = read(work).law.fit
    assert int(fit.held_out.sum()) == law.data.n_holdout == 3
    assert fit.rows.losses[fit.held_out].max() < fit.rows.losses[~fit.held_out].min()
    rmse = np.sqrt(np.mean(fit.residuals[~fit.held_out] ** 2))
    assert rmse == pytest.approx(law.errors["rmse_fit"])


def test_a_law_of_other_runs_is_said_to_be_so(fitted, tmp_path):
    shutil.copytree(fitted[0].path, tmp_path / "w")
    work = Workdir(str(tmp_path / "w"))
    assert "another results.csv" not in read_page(work).text
    run = work.existing_manifest().runs[0]
    work.run_dir(run.name).write_result(synthetic.result_of(run, eval_loss=3.3333))
    assert "fitted to another results.csv than these runs give now" in read_page(work).text


@pytest.mark.parametrize(
    ("options", "drawn", "compared"),
    [
        ({"where": "granularity == 1", "law": "chinchilla"}, True, 9),
        ({"loss": "train_loss"}, False, 27),
        ({"columns": {"N": "n_total_nonemb / 2"}}, False, 27),
    ],
)
def test_a_law_is_compared_with_the_rows_that_it_was_fitted_to(fitted, tmp_path, options, drawn, compared):
    shutil.copytree(fitted[0].path, tmp_path / "w")
    work = Workdir(str(tmp_path / "w"))
    few = {"start": 4, "resampling": laws.Resampling(samples=0)}
    laws.fit(str(work.path / "results.csv"), **few, **options).law.save(work.path / "law.json")
    law = read(work).law
    assert law.drawable is drawn and len(law.fit.predicted) == compared
    rmse = np.sqrt(np.mean(law.fit.residuals**2))
    assert rmse == pytest.approx(law.law.errors["rmse_fit"])
    text = read_page(work).text
    assert ("is not drawn through the held-out losses" in text) is not drawn
    assert "not tested (no bootstrap)" in text


@pytest.mark.parametrize(
    "content", ["{", "{}", sealed_text({"law": "krajewski2024"}), sealed_text({"law": "nobody1900"}), ""]
)
def test_an_unreadable_law_leaves_the_rest_of_the_page(tmp_path, content):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned:
        synthetic.finish(work, run)
    (work.path / "law.json").write_text(content)
    shown = read_page(work)
    assert planned[0].name in shown.text and "Loss against N, D and G" in shown.text
    assert str(work.path / "law.json") in shown.text


def test_an_unreadable_law_fails_the_verb_after_the_page_is_there(tmp_path):
    work, _ = synthetic.make(tmp_path / "w", SMALL)
    (work.path / "law.json").write_text("{")
    with pytest.raises(WorkFailed, match=r"without a law: .*law\.json"):
        report.main(["--workdir", str(work.path)])
    assert "8 queued" in Reader((work.path / "report.html").read_text()).text


def test_without_a_law_the_page_says_what_makes_one(tmp_path):
    work, planned = synthetic.make(tmp_path / "a sweep", SMALL)
    for run in planned:
        synthetic.finish(work, run)
    text = read_page(work).text
    assert f"moe-jax fit --workdir '{work.path}'" in text
    assert "Losses fall with N in 4 of 4" in text


def test_a_page_of_a_sweep_that_has_hardly_begun(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    assert "8 runs: 8 queued." in read_page(work).text
    synthetic.begin(work, planned[0], step=5, loss=4.0)
    work.run_dir(planned[0].name).write_metrics(synthetic.curve(planned[0], upto=20))
    text = make_report(work).text
    assert (
        "7 queued, 1 running" in text
        and "No run has a loss yet." in text
        and "1 of 8 runs, from 2% of the longest on." in text
    )
    synthetic.finish(work, planned[1])
    text = read_page(work).text
    assert "1 of 8 runs done" in text and "nothing to compare yet" in text


def test_what_did_not_come_through_is_listed_and_left_out(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned[:5]:
        synthetic.finish(work, run)
    damaged, diverged, failed = planned[5:8]
    folder = synthetic.finish(work, damaged, synthetic.result_of(damaged, eval_loss=0.5))
    folder.result_path.write_text(folder.result_path.read_text()[:-5])
    synthetic.finish(work, diverged, synthetic.diverged_result_of(diverged, 20))
    folder, attempt = synthetic.begin(work, failed, step=7)
    folder.end_attempt(attempt, 1, "the disk is full")
    text = read_page(work).text
    assert "5 of 8 runs done" in text
    assert f"Left out of every number on this page: {damaged.name}" in text and "0.5000" not in text
    assert f"{diverged.name} (diverged): the loss is not finite at step 20" in text
    assert f"{failed.name} (failed): the disk is full" in text


def test_a_torn_line_ends_a_curve_but_not_the_page(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned:
        folder = synthetic.finish(work, run)
    lines = folder.metrics.read_text().splitlines()
    folder.metrics.write_text("\n".join([*lines[:6], lines[6][:9]]))
    foreign = work.run_dir(planned[0].name).metrics
    foreign.write_text(
        '{"step": 1, "loss": 3.0, "tokens": 10}\n{"step": 2}\n{"step": 3, "loss": "x", "tokens": 30}\n[]\n'
    )
    curves = read(work).curves
    assert len(curves) == 8
    assert sorted(len(curve.tokens) for curve in curves)[:2] == [1, 6]
    make_report(work)


def test_hostile_text_stays_text(tmp_path):
    store = StoreIdentity(EVIL, EVIL, 256)
    work, planned = synthetic.make(tmp_path / "w <b>&", SMALL, store, flags=f"--config={EVIL}")
    for run in planned[:-2]:
        folder = synthetic.finish(work, run, synthetic.result_of(run, device=EVIL, git_commit=EVIL))
        hostile = dataclasses.replace(folder.run_record().store, sha256=EVIL)
        folder.write_run_record(synthetic.run_record_of(run, versions={EVIL: EVIL}, mesh={EVIL: 1}, store=hostile))
    folder, attempt = synthetic.begin(work, planned[-2], step=3)
    (folder.path / "heartbeat.json").write_text(json.dumps({"step": 3, "phase": EVIL, "loss": EVIL}))
    folder.end_attempt(attempt, 1, EVIL)
    folder = synthetic.finish(work, planned[-1])
    folder.result_path.write_text(sealed_text(synthetic.result_of(planned[-1], name=EVIL).to_json()))
    shown = make_report(work)
    assert "script" not in shown.tags and shown.tags.count("img") == 5
    assert all(link.startswith(("data:", "#")) for link in shown.links)
    assert shown.text.count("<script>alert(1)</script>") >= 6  # as text, where it was written


def test_dropping_is_a_warning_above_ten_percent(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned:
        dropped = 0.07 * run.config.moe.granularity
        synthetic.finish(work, run, synthetic.result_of(run, dropped_fraction=dropped))
    text = read_page(work).text
    assert "4 runs of 8 dropped more than 10%. There G is confounded with dropping" in text
    assert "7.0% to 14.0%" in text


def test_the_cost_of_dropping_in_evaluation_is_said_where_it_is_large(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned:
        loss = synthetic.planned_loss(run)
        inflated = loss + 0.02 * (run.config.moe.granularity - 1)
        synthetic.finish(work, run, synthetic.result_of(run, eval_loss_capacity=inflated, eval_dropped_fraction=0.125))
    text = read_page(work).text
    assert "In 4 runs of 8 the two losses differ by more than 0.005 nats (no seeds were run)" in text
    assert "in training and 12.5% to 12.5% in evaluation" in text and "in evaluation with capacity" in text


def test_exceptions_to_falling_losses_are_listed(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned[:-1]:
        synthetic.finish(work, run)
    synthetic.finish(work, planned[-1], synthetic.result_of(planned[-1], eval_loss=4.5))
    text = read_page(work).text
    assert "Losses fall with N in 3 of 4 neighbouring pairs and with D in 3 of 4" in text
    assert "N 34.8k → 139k at D = 193k, G = 2: " in text and "D 96.3k → 193k at N = 139k, G = 2: " in text


def test_runs_that_differ_beside_the_axes_get_tables_of_their_own(tmp_path):
    cells = [cell | {"moe.expansion_rate": e} for cell in SMALL[:4] for e in (4, 8)]
    work, planned = synthetic.make(tmp_path / "w", cells)
    for run in planned:
        synthetic.finish(work, run)
    text = read_page(work).text
    assert "expansion_rate = 4" in text and "expansion_rate = 8" in text


def test_dense_twins_are_in_the_page(tmp_path):
    work, planned = synthetic.make(tmp_path / "w", [*SMALL, {"moe": None, "train.tokens": 96_000}])
    for run in planned:
        synthetic.finish(work, run)
    assert planned[-1].name in read_page(work).text


def test_no_sweep_is_one_sentence(tmp_path, capsys):
    with pytest.raises(UserError, match="holds no sweep"):
        report.main(["--workdir", str(tmp_path)])
    assert command.run(report.main, ["--workdir", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
