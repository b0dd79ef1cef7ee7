"""prediction.csv and its section of the report: what was stated before counts, and is never stated again."""

import csv
import dataclasses

import numpy as np
import pytest

from moe_jax import errors, laws
from moe_jax.cli import collect, command, predict
from moe_jax.report.page import drawings
from moe_jax.report.reading import read
from tests import synthetic_sweep as synthetic
from tests.hand_edits import change
from tests.pages import assert_nothing_overlaps, read_page

SMALL = synthetic.cells(widths=[16, 32], tokens=[96_000, 192_000], granularities=[1, 2])


@pytest.fixture
def sweep(tmp_path):
    """Eight runs, two of them done, and the law that made their losses, with an uncertain c."""
    work, planned = synthetic.make(tmp_path / "w", SMALL)
    for run in planned[:2]:
        synthetic.finish(work, run)
    samples = {name: np.full(41, value) for name, value in synthetic.LAW.items()}
    samples["c"] = synthetic.LAW["c"] + np.linspace(-0.01, 0.01, 41)
    law = dataclasses.replace(
        laws.published("krajewski2024"), coefficients=synthetic.LAW, samples=samples, errors={"rmse_fit": 0.004}
    )
    law.save(work.path / "law.json")
    return work, planned


def stated(work):
    with open(work.path / "prediction.csv", newline="") as f:
        return list(csv.DictReader(f))


def call(work, *flags):
    return command.run(predict.main, ["--workdir", str(work.path), *flags])


def test_what_was_stated_before_the_run_is_kept(sweep, capsys):
    work, planned = sweep
    assert call(work) == errors.DONE
    before = stated(work)
    assert [r["state"] for r in before] == ["done"] * 2 + ["queued"] * 6
    for run in planned[2:4]:
        synthetic.finish(work, run)
    assert call(work, "--law", "krajewski2024") == errors.DONE
    after = stated(work)
    assert after[2:4] == before[2:4]
    assert all(a["predicted_loss"] != b["predicted_loss"] for a, b in zip(after[4:], before[4:], strict=True))
    assert "2 runs done by now" in capsys.readouterr().out


def test_the_report_counts_what_was_predicted_before(sweep):
    work, planned = sweep
    assert call(work) == errors.DONE
    misses = {planned[2].name: 0.006, planned[3].name: -0.5}
    for run in planned[2:4]:
        loss = synthetic.planned_loss(run) + misses[run.name]
        synthetic.finish(work, run, synthetic.result_of(run, eval_loss=loss))
    assert collect.main(["--workdir", str(work.path)]) == 0
    seen = read(work)
    assert {c.name: c.error for c in seen.predictions if c.measured is not None and c.before} == pytest.approx(misses)
    page = read_page(work)
    assert "2 runs of 8 predicted before being finished, and measured since: RMSE 0.3536 nats" in page.text
    assert "lies inside the predicted 80% interval in 1 of 2 runs" in page.text
    assert "2 runs had been finished when the prediction was stated: listed, not counted." in page.text
    figure = drawings(seen)["predictions"].draw()
    dots = [line.get_xydata() for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [len(d) for d in dots] == [2, 2]
    assert sorted(dots[0][:, 1]) == pytest.approx([-0.5, 0.006])
    assert_nothing_overlaps(figure)


def test_predictions_of_nothing_done_yet(sweep):
    work, _ = sweep
    assert call(work, "--law", "krajewski2024") == errors.DONE
    rows = stated(work)
    assert all(r["low"] == "nan" for r in rows)
    page = read_page(work)
    assert "8 runs predicted; those finished were finished before the prediction" in page.text


@pytest.mark.parametrize(
    "spoil", [lambda t: t[: len(t) // 2], lambda t: t.replace("predicted_loss", "x"), lambda t: "\0"]
)
def test_damaged_predictions_are_neither_shown_nor_replaced(sweep, capsys, spoil):
    work, _ = sweep
    assert call(work) == errors.DONE
    path = work.path / "prediction.csv"
    path.write_text(spoil(path.read_text()).rstrip("\n0123456789"))
    spoilt = path.read_bytes()
    capsys.readouterr()
    assert call(work) == errors.BAD_INPUT
    assert "prediction.csv: is damaged" in capsys.readouterr().err and path.read_bytes() == spoilt
    assert "prediction.csv: is damaged" in read_page(work).text


def test_hostile_text_in_predictions_stays_text(sweep):
    work, _ = sweep
    assert call(work) == errors.DONE
    path = work.path / "prediction.csv"
    path.write_text(path.read_text().replace("krajewski2024", "<script>alert(1)</script>"))
    assert "script" not in read_page(work).tags


def test_a_law_of_another_loss_is_compared_with_that(sweep):
    work, planned = sweep
    change(work.path / "law.json", loss="train_loss")
    assert call(work) == errors.DONE
    synthetic.finish(work, planned[2])
    checked = {c.name: c for c in read(work).predictions}[planned[2].name]
    assert checked.measured == pytest.approx(synthetic.planned_loss(planned[2]) - 0.01)
