"""Rooflines by hand."""

import pytest

from moe_jax import chips
from moe_jax.plan import roofline


def test_each_bound_by_hand():
    v5e = chips.CHIPS["v5e"]
    bounds = roofline.roofline(roofline.Work(197e12, 819e9 / 2, 400e9 / 2 / 4, 0), v5e)
    assert bounds.compute == pytest.approx(1) and bounds.hbm == pytest.approx(0.5)
    assert bounds.ici == pytest.approx(0.25) and bounds.dcn == 0
    assert (bounds.seconds, bounds.bound) == (bounds.compute, "compute")
    # A chip of two devices: each has half of everything.
    tpu7x = chips.CHIPS["tpu7x"]
    assert roofline.roofline(roofline.Work(tpu7x.peak_flops, 1, 1, 0), tpu7x).compute == pytest.approx(2)
    # Between slices: a rate that nobody publishes is said to be unknown, not taken as 0 or infinite.
    v4 = chips.CHIPS["v4"]
    assert v4.dcn_bandwidth is None
    between = roofline.roofline(roofline.Work(1, 1, 1, 1e12), v4)
    assert between.dcn is None and between.bound != "dcn"
