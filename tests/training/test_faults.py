"""A training killed at random moments, again and again, ends as one that nobody stopped."""

import pytest

from moe_jax import errors
from tests.conftest import child_environment
from tests.faults import CONFIG, FaultTest, differences


def fault_test(byte_store, scratch, seed, *more):
    flags = [*CONFIG, f"--config.data.store={byte_store}", *more]
    return FaultTest(flags, scratch, child_environment(), seed)


def test_a_few_kills(byte_store, tmp_path):
    """By the clock, before a file operation, and while the result is written."""
    a = fault_test(byte_store, tmp_path, 0, "--config.train.tokens=8192")
    assert a.kill(3).total() == 3


@pytest.mark.slow
def test_thirty_kills_and_ten_stops(byte_store, tmp_path):
    a = fault_test(byte_store, tmp_path, 1)
    hit = a.kill(30)
    assert hit.total() == 30 and len(hit) >= 4, hit
    codes, seconds = a.stop(10)
    assert codes.total() == 10 and codes[errors.STOPPED] >= 5, codes
    assert max(seconds) < 60  # far more than it takes, also on a busy machine


def test_differences_are_seen():
    one = {"result": {"a": 1}, "metrics": [{"step": 0, "loss": 1.0}], "arrays": {"x": b"0"}}
    assert differences(one, one) == []
    other = {"result": {"a": 2, "b": 0}, "metrics": [{"step": 0, "loss": 1.5}], "arrays": {"x": b"1"}}
    assert differences(one, other) == ["result.a", "result.b", "metrics[0].loss", "arraysx"]
    assert differences(one, one | {"metrics": []}) == ["metrics: other steps"]
