"""What `submit` says of costs: plan.json's, where it was made for these runs and chips; else that it is unknown."""

import json

import pytest

from moe_jax import files
from moe_jax.config import config_file
from moe_jax.plan import costs
from moe_jax.plan import rows as rows_lib
from moe_jax.plan.compiles import Compiles
from moe_jax.plan.grid_forecast import add_forecasts
from moe_jax.plan.step_forecast import Target
from moe_jax.sweep import jobs
from moe_jax.sweep.launchers import slices
from moe_jax.sweep.planned_grid import plan_grid
from moe_jax.sweep.workdir import Workdir
from tests.fake_compiler import GIB, FakeCompiler
from tests.hand_edits import sealed_text

WSD = ["schedule='wsd'", "warmup_fraction=None", "warmup_tokens=512", "decay_fraction=0.25"]
V5E_4 = slices.on_gke("v5litepod-4", 1)


def grid_of(*flags):
    return plan_grid(config_file.load(["--config=configs/smoke.py:tiny", *flags]), store_required=False)


@pytest.fixture
def planned(tmp_path):
    """planned(*flags) -> (the runs of a config, the totals of plan.json, which is made for them)."""

    def make(*flags, topology="v5e:2x2", number=1, pick=False, needs=None):
        grid = grid_of(*flags)
        steps = Compiles(tmp_path / "compiles", needs or FakeCompiler())
        rates, target = rows_lib.Rates(price_per_chip_hour=2.0), Target(topology, number, pick)
        rows = add_forecasts(rows_lib.plan_rows(grid), grid.runs, target, rates, jobs=1, steps=steps)
        totals = rows_lib.totals(rows, grid)
        files.write_sealed(Workdir(str(tmp_path)).path / "plan.json", {"runs": rows, "totals": totals})
        return grid.runs, totals

    return make


def said(tmp_path, runs, where):
    known = costs.matching_plan(Workdir(str(tmp_path)), runs, where)
    cost = costs.cost_of_jobs(jobs.jobs_of(runs, apart=False), known)
    return cost, costs.cost_sentence(cost, known)


def test_the_plans_chip_hours_are_those_of_its_runs_on_its_chips(tmp_path, planned):
    runs, totals = planned()
    cost, words = said(tmp_path, runs, V5E_4)
    assert cost.chip_hours == pytest.approx(totals["chip_hours"]) and cost.price == pytest.approx(totals["price"])
    assert " chip-hours on v5e:2x2 by plan.json, price " in words
    assert said(tmp_path, runs, None)[0].chip_hours == cost.chip_hours  # a name that says nothing


def test_several_slices_are_named(tmp_path, planned):
    runs, _ = planned(topology="v5e:1x1", number=2)
    assert "on 2 × v5e:1x1 by plan.json" in said(tmp_path, runs, slices.on_gke("v5litepod-1", 2))[1]


def test_shared_trunks_cost_once_and_what_is_done_nothing(tmp_path, planned):
    runs, totals = planned(*(f"--config.optim.{field}" for field in WSD))
    assert said(tmp_path, runs, V5E_4)[0].chip_hours == pytest.approx(totals["own_chip_hours"])
    whole = jobs.jobs_of(runs, apart=False)[0]
    short, long = whole.runs
    assert jobs.left_of(whole, [short.name, long.name]) == whole
    # D of 2,048 and 4,096 tokens: a trunk of 1,536 and 3,072, branches of 512 and 1,024
    assert whole.tokens == 3_072 + 512 + 1_024
    assert jobs.left_of(whole, [long.name]).tokens == 3_072 + 1_024
    assert jobs.left_of(whole, [short.name]).tokens == 1_536 + 512
    known = costs.matching_plan(Workdir(str(tmp_path)), runs, V5E_4)
    left = costs.cost_of_jobs([jobs.left_of(whole, [short.name])], known).chip_hours
    assert left / costs.cost_of_jobs([whole], known).chip_hours == pytest.approx((1_536 + 512) / (3_072 + 512 + 1_024))


@pytest.mark.parametrize(
    "where", [slices.on_gke("v5litepod-8", 1), slices.on_gke("v6e-4", 1), slices.on_gke("v5litepod-1", 4)]
)
def test_a_plan_for_other_chips_says_nothing(tmp_path, planned, where):
    runs, _ = planned()
    cost, words = said(tmp_path, runs, where)
    assert cost.chip_hours is None and "chip-hours unknown (plan.json is for v5e:2x2, and a job has " in words


@pytest.mark.parametrize(
    "flag", ["train.batch_sequences=16", "train.microbatches=2", "mesh.expert=2", "model.compute_dtype='bfloat16'"]
)
def test_a_plan_of_another_config_or_mesh_says_nothing(tmp_path, planned, flag):
    planned()
    cost, words = said(tmp_path, grid_of(f"--config.{flag}").runs, V5E_4)
    assert cost.chip_hours is None and "another config, mesh or microbatches" in words


def test_what_was_picked_is_of_runs_that_ask_for_it(tmp_path, planned):
    runs, _ = planned(pick=True, needs=FakeCompiler(GIB, parts=20 * GIB))
    row = json.loads((tmp_path / "plan.json").read_text())["runs"][0]
    assert row["fits"] and row["microbatches"] > 1
    assert "another config, mesh or microbatches" in said(tmp_path, runs, V5E_4)[1]
    mesh = [f"--config.mesh.{axis}={size}" for axis, size in row["mesh"].items()]
    asked = grid_of(f"--config.train.microbatches={row['microbatches']}", *mesh).runs
    assert said(tmp_path, asked, V5E_4)[0].chip_hours > 0


def test_runs_that_will_not_fit_are_named(tmp_path, planned):
    runs, _ = planned(needs=FakeCompiler(20 * GIB))
    known = costs.matching_plan(Workdir(str(tmp_path)), runs, V5E_4)
    assert costs.runs_that_do_not_fit(jobs.jobs_of(runs), known) == [run.name for run in runs]


def test_without_a_forecast_it_is_said(tmp_path, planned):
    runs = grid_of().runs
    assert "chip-hours unknown (there is no plan.json; moe-jax plan --topology" in said(tmp_path, runs, V5E_4)[1]
    path, values = tmp_path / "plan.json", {"totals": {}}
    files.write_sealed(Workdir(str(tmp_path)).path / "plan.json", values | {"runs": rows_lib.plan_rows(grid_of())})
    assert "plan.json was made without --topology" in said(tmp_path, runs, V5E_4)[1]
    path.write_text(sealed_text(values | {"runs": [{"name": runs[0].name, "topology": "v5e:2x2", "devices": "4"}]}))
    assert "plan.json was made without --topology" in said(tmp_path, runs, V5E_4)[1]
    planned()
    told = json.loads(path.read_text())
    for column, value in (("chip_hours", -5), ("price", "3"), ("train_flops", 1)):
        path.write_text(sealed_text(told | {"runs": [row | {column: value} for row in told["runs"]]}))
        assert "chip-hours unknown (plan.json has " in said(tmp_path, runs, V5E_4)[1]
    for damaged in ("[]", sealed_text({"runs": 1}), sealed_text({"runs": [1]}), json.dumps(values)):
        path.write_text(damaged)
        with pytest.raises(files.DamagedFile):
            said(tmp_path, runs, V5E_4)
