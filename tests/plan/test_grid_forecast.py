"""Forecasts of a grid: each shape is compiled once; a stop or a crash costs no more than its own shape."""

import os
import signal
import threading

import pytest

from moe_jax import errors, interrupts
from moe_jax.config import config_file
from moe_jax.plan.compiles import CompileFailed, Compiles
from moe_jax.plan.grid_forecast import add_forecasts
from moe_jax.plan.rows import Rates, plan_rows
from moe_jax.plan.step_forecast import Target
from moe_jax.sweep.planned_grid import plan_grid
from tests.fake_compiler import FakeCompiler

TINY = config_file.load(["--config=configs/smoke.py:tiny"])


def test_each_shape_is_compiled_once_and_several_at_a_time(tmp_path):
    grid = plan_grid(TINY, store_required=False)
    together = threading.Barrier(2, timeout=30)

    class Meeting(FakeCompiler):
        def __call__(self, request):
            together.wait()  # breaks unless two are compiled side by side
            return super().__call__(request)

    fake = Meeting()
    rows = plan_rows(grid)
    target = Target("v5e:2x2", 1, False)
    added = add_forecasts(rows, grid.runs, target, Rates(), jobs=2, steps=Compiles(tmp_path, fake))
    assert len(added) == 8 and len(fake.asked) == 4  # D is no part of a shape
    assert all(row["fits"] and row["microbatches"] == 1 for row in added)
    again = FakeCompiler()
    assert add_forecasts(rows, grid.runs, target, Rates(), jobs=2, steps=Compiles(tmp_path, again))
    assert not again.asked


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_plan_that_is_stopped_goes_on(tmp_path, number):
    grid = plan_grid(TINY, store_required=False)
    rows, target = plan_rows(grid), Target("v5e:2x2", 1, False)

    class Interrupted(FakeCompiler):
        def __call__(self, request):
            if len(self.asked) == 2:
                os.kill(os.getpid(), number)
                assert steps._children._ended.wait(30)  # as a child that is killed
                raise errors.Stopped("stopped")
            return super().__call__(request)

    steps = Compiles(tmp_path, Interrupted())
    with interrupts.sigterm_as_interrupt(), pytest.raises(errors.Stopped, match="stopped with 2 of 4 shapes compiled"):
        add_forecasts(rows, grid.runs, target, Rates(), jobs=1, steps=steps)
    rest = FakeCompiler()
    add_forecasts(rows, grid.runs, target, Rates(), jobs=1, steps=Compiles(tmp_path, rest))
    assert len(rest.asked) == 2


def test_a_compiler_that_crashes_costs_its_own_shape_only(tmp_path):
    grid = plan_grid(TINY, store_required=False)

    class Crashing(FakeCompiler):
        def __call__(self, request):
            if request.shape.config.moe.granularity == 2:
                raise CompileFailed("the compiler ended with code -11: it said nothing")
            return super().__call__(request)

    steps = Compiles(tmp_path, Crashing())
    target = Target("v5e:2x2", 1, False)
    rows = add_forecasts(plan_rows(grid), grid.runs, target, Rates(), jobs=1, steps=steps)
    assert [row["fits"] for row in rows] == [row["granularity"] == 1 for row in rows]
    assert all("code -11" in row["reason"] for row in rows if not row["fits"])
    assert len(list(tmp_path.iterdir())) == 2  # a crash is not kept: the next plan tries again
