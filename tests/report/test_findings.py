"""findings: what is counted in a grid of losses, on grids whose answer is known."""

import statistics

import pytest

from moe_jax.report import findings
from moe_jax.sweep import results
from moe_jax.sweep.results import Row
from tests import synthetic_sweep as synthetic


def rows(tmp_path, cells=None, loss=synthetic.planned_loss, **changed) -> list[Row]:
    """Rows of finished runs whose losses are `loss(run)`."""
    work, planned = synthetic.make(tmp_path / "w", cells)
    for run in planned:
        folder, _ = synthetic.begin(work, run)
        folder.write_result(synthetic.result_of(run, eval_loss=loss(run), **changed))
    return [results.row_of_run(run, work.run_dir(run.name)) for run in planned]


def test_a_law_that_falls_falls_everywhere(tmp_path):
    grid = findings.measured_cells(rows(tmp_path))
    assert len(grid) == 27
    said, exceptions = findings.falls(grid)
    assert said == "Losses fall with N in 18 of 18 neighbouring pairs and with D in 18 of 18 neighbouring pairs."
    assert exceptions == []


def test_one_bad_cell_is_named_in_its_pairs(tmp_path):
    middle = {"model.d_model": 32, "train.tokens": 192_000, "moe.granularity": 2}
    bad = rows(tmp_path, loss=lambda run: 9.0 if run.overrides == middle else synthetic.planned_loss(run))
    said, exceptions = findings.falls(findings.measured_cells(bad))
    assert said == "Losses fall with N in 17 of 18 neighbouring pairs and with D in 17 of 18 neighbouring pairs."
    assert {pair.axis for pair in exceptions} == {"N", "D"}
    assert all(pair.high.loss == 9.0 and pair.rise > 0 for pair in exceptions)
    assert exceptions == sorted(exceptions, key=lambda pair: -pair.rise)
    in_N = next(pair for pair in exceptions if pair.axis == "N")
    assert findings.pair_sentence(in_N).startswith("N 34.8k → 139k at D = 193k, G = 2: ")
    assert f"→ 9.0000 (+{in_N.rise:.4f})" in findings.pair_sentence(in_N)


def test_a_plateau_does_not_count_as_falling(tmp_path):
    flat = findings.measured_cells(rows(tmp_path, loss=lambda run: 3.0))
    said, exceptions = findings.falls(flat)
    assert said.startswith("Losses fall with N in 0 of 18") and len(exceptions) == 36


def test_diverged_runs_and_lone_cells_are_no_neighbours(tmp_path):
    lone = rows(tmp_path, synthetic.cells(widths=[16], tokens=[96_000], granularities=[1]))
    assert "nothing to compare" in findings.falls(findings.measured_cells(lone))[0]
    assert findings.measured_cells([lone[0] | {"status": "diverged", "eval_loss": None}]) == []


def test_what_differs_elsewhere_is_not_compared(tmp_path):
    cells = [{"model.d_model": d, "moe.expansion_rate": e, "moe.granularity": 2} for d, e in [(16, 4), (32, 8)]]
    assert findings.neighbours(findings.measured_cells(rows(tmp_path, cells)), "N") == []
    cells = [{"model.d_model": d, "optim.learning_rate": r} for d, r in [(16, 1e-3), (32, 2e-3)]]
    by_rule = findings.measured_cells(rows(tmp_path / "rule", cells))
    assert len(findings.neighbours(by_rule, "N")) == 1  # a learning rate that goes with N is part of the recipe
    both = [{"model.d_model": d, "optim.learning_rate": r} for d in (16, 32) for r in (1e-3, 2e-3)]
    assert len(findings.neighbours(findings.measured_cells(rows(tmp_path / "sweep", both)), "N")) == 2


def test_seeds_are_one_cell_and_give_the_noise(tmp_path):
    losses = {(0, 16): 3.0, (1, 16): 3.2, (2, 16): 3.1, (0, 32): 2.5, (1, 32): 2.6, (2, 32): 2.7}
    cells = [{"seed": seed, "model.d_model": d} for seed, d in losses]
    grid = findings.measured_cells(rows(tmp_path, cells, lambda run: losses[run.config.seed, run.config.model.d_model]))
    assert [len(cell.losses) for cell in grid] == [3, 3]
    assert grid[0].loss == pytest.approx(3.1)
    assert findings.noise(grid) == pytest.approx(statistics.stdev([3.0, 3.1, 3.2]))
    assert findings.noise(findings.measured_cells(rows(tmp_path / "once"))) is None


def test_the_effect_of_g_has_the_planted_size_and_sign(tmp_path):
    grid = findings.measured_cells(rows(tmp_path))
    effects = findings.granularity_effects(grid)
    assert len(effects) == 9 and all(effect.Gs == (1, 2, 4) for effect in effects)
    p = synthetic.LAW
    for effect in effects:
        planted = p["g"] * (4 ** -p["gamma"] - 1) / effect.N ** p["alpha"]
        assert effect.change == pytest.approx(planted) and effect.change < 0
        assert effect.spread == pytest.approx(-planted)
    said = findings.granularity_sentences(effects, None)
    assert "lower loss than the coarsest in 9 of 9 (N, D) pairs." in said[1]
    assert "cannot tell the effect of G from noise" in said[2]
    assert "scatter by 0.0100 nats" in findings.granularity_sentences(effects, 0.01)[2]


def test_an_effect_of_g_of_both_signs_is_said_to_be_so(tmp_path):
    def either(run):
        sign = 1 if run.config.model.d_model == 16 else -1
        return 3 + sign * 0.01 * run.config.moe.granularity

    said = findings.granularity_sentences(
        findings.granularity_effects(findings.measured_cells(rows(tmp_path, loss=either))), None
    )
    assert "in 6 of 9 (N, D) pairs: the effect has no single sign here." in said[1]
    assert "No (N, D)" in findings.granularity_sentences([], None)[0]


def test_dropping_above_the_limit_confounds_g(tmp_path):
    few = rows(tmp_path)
    said, over = findings.dropped(few)
    assert over == [] and len(said) == 1 and "2.0% to 2.0%" in said[0]
    many = [row | {"dropped_fraction": 0.04 * row["granularity"]} for row in few]
    said, over = findings.dropped(many)
    assert {row["granularity"] for row in over} == {4} and len(over) == 9
    assert "9 runs of 27 dropped more than 10%" in said[1] and "confounded" in said[1]
    at_limit = [row | {"dropped_fraction": 0.10} for row in few]
    assert findings.dropped(at_limit)[1] == []
    assert findings.dropped([row | {"dropped_fraction": None} for row in few])[1] == []
