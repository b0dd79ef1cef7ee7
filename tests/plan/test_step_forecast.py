"""Forecasts of one step on a slice: what is tried, what is picked, and what is said where nothing fits."""

import pytest

from moe_jax import errors
from moe_jax.config.identity import StepShape
from moe_jax.plan.step_forecast import Target, forecast_step
from tests import models
from tests.fake_compiler import GIB, FakeCompiler


@pytest.mark.parametrize(("parts", "expected"), [(0, 1), (28, 2), (40, 4), (100, 8), (900, 64)])
def test_picking_finds_the_fewest_microbatches_that_fit(parts, expected):
    c = models.config("train.batch_sequences=512", "train.microbatches=4")
    fake = FakeCompiler(fixed=GIB, parts=parts * GIB)
    shape = StepShape(c, 37)
    found = forecast_step(shape, 1000, Target("v5e:2x2", 1, pick=True), fake)
    assert found.fits and found.placement.microbatches == expected
    assert len(fake.asked) <= 6  # of the 8 numbers that divide the batch into parts for 4 devices


def test_without_picking_the_configs_own_is_all_that_is_tried():
    c = models.config("train.batch_sequences=512", "train.microbatches=4")
    fake = FakeCompiler(fixed=GIB, parts=100 * GIB)
    found = forecast_step(StepShape(c, 37), 1000, Target("v5e:2x2", 1, pick=False), fake)
    assert not found.fits and len(fake.asked) == 1 and found.placement.microbatches == 4


def test_where_nothing_fits_the_nearest_miss_is_told():
    c = models.config("train.batch_sequences=16")
    found = forecast_step(StepShape(c, 37), 1000, Target("v5e:2x2", 1, pick=True), FakeCompiler(20 * GIB, 16 * GIB))
    assert not found.fits and found.placement.microbatches == 4
    assert found.bytes_per_device == 24 * GIB


def test_a_step_that_cannot_be_cut_so_has_a_reason_and_no_compile():
    fake = FakeCompiler()
    for pick in (False, True):
        found = forecast_step(StepShape(models.config(), 37), 1000, Target("v5e:8x8", 1, pick), fake)
        assert not found.fits and "must divide the 16 experts" in found.reason
        columns = found.columns(1e12)
        assert columns["step_seconds"] is None and columns["chips"] == 64
    assert not fake.asked


def test_auto_finds_the_smallest_slice_and_passes_over_those_that_cannot_hold_the_state():
    c = models.config("train.batch_sequences=512", "mesh.data=-1", "mesh.expert=1")
    fake = FakeCompiler(fixed=100 * GIB, per_device=True)
    found = forecast_step(StepShape(c, 37), 1000, Target("auto", 1, pick=False), fake)
    assert found.topology.name == "v5e:2x4" and found.fits
    assert [r.topology for r in fake.asked] == ["v5e:1x1", "v5e:2x2", "v5e:2x4"]
    fake.asked.clear()
    found = forecast_step(StepShape(c, 37), 6 * GIB, Target("auto:v5e", 1, pick=False), fake)  # a state of 72 GiB
    assert [r.topology for r in fake.asked] == ["v5e:2x4"]
    with pytest.raises(errors.UserError, match="there is no chip 'v9'"):
        _ = Target("auto:v9", 1, pick=False).candidates
