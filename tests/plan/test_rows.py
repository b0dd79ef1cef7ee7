"""Rows of plan.json: hours and price of runs, and what shared trunks cost."""

import json

import pytest

from moe_jax.config import config_file
from moe_jax.plan.compiles import Compiles
from moe_jax.plan.grid_forecast import add_forecasts
from moe_jax.plan.rows import Rates, plan_rows, totals
from moe_jax.plan.step_forecast import Target
from moe_jax.sweep.planned_grid import plan_grid
from tests.fake_compiler import FakeCompiler


def test_the_hours_of_a_run_are_its_counts_over_the_published_peak(tmp_path):
    file = config_file.load(["--config=configs/krajewski2024.py:table3"])
    grid = plan_grid(file, store_required=False).only(["n25m-d16b-g8-*"])
    rates = Rates(efficiency=0.5, price_per_chip_hour=1.25)
    steps = Compiles(tmp_path, FakeCompiler())
    rows = plan_rows(grid)
    (row,) = add_forecasts(rows, grid.runs, Target("v5e:4x4", 1, False), rates, jobs=1, steps=steps)
    assert row["seconds"]["compute"] == pytest.approx(row["train_flops"] / row["steps"] / (16 * 197e12))
    assert row["bound"] == "compute"  # of this fake's bytes
    assert row["hours"] == pytest.approx(row["train_flops"] / (16 * 197e12) / 0.5 / 3600)
    assert row["chip_hours"] == pytest.approx(16 * row["hours"])
    assert row["price"] == pytest.approx(1.25 * row["chip_hours"])
    summed = totals([row], grid)
    assert (summed["fit"], summed["chip_hours"], summed["price"]) == (1, row["chip_hours"], row["price"])
    json.dumps([row, summed], allow_nan=False)


def test_shared_trunks_cost_once(tmp_path):
    wsd = ["schedule='wsd'", "warmup_fraction=None", "warmup_tokens=512", "decay_fraction=0.25"]
    file = config_file.load(["--config=configs/smoke.py:tiny", *(f"--config.optim.{field}" for field in wsd)])
    grid = plan_grid(file, store_required=False)
    steps, rows = Compiles(tmp_path, FakeCompiler()), plan_rows(grid)
    rows = add_forecasts(rows, grid.runs, Target("v5e:2x2", 1, False), Rates(), jobs=1, steps=steps)
    summed = totals(rows, grid)
    # D of 2,048 and 4,096 tokens: 3,072 of a trunk, and 512 and 1,024 of branches.
    assert summed["own_chip_hours"] / summed["chip_hours"] == pytest.approx((3072 + 512 + 1024) / (2048 + 4096))
    assert summed["own_price"] is None
