import itertools
import threading
import time

import pytest

from moe_jax.data.prefetch import Prefetcher
from moe_jax.training.metrics import Times


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


def test_gives_every_step_in_order():
    with Prefetcher(lambda step: step * step, 3, 50) as batches:
        assert list(batches) == [(s, s * s) for s in range(3, 50)]


def test_an_error_comes_out_at_its_step():
    def load(step):
        if step == 5:
            raise RuntimeError("no step 5")
        return step

    seen = []
    with pytest.raises(RuntimeError, match="no step 5"), Prefetcher(load, 0, 10) as batches:
        seen.extend(step for step, _ in batches)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("consumed", [0, 1, 3])
def test_stops_in_the_middle_and_loads_no_more(consumed):
    loaded = []

    def load(step):
        loaded.append(step)
        return step

    with Prefetcher(load, 0, 10**9) as batches:
        assert list(itertools.islice(batches, consumed)) == [(s, s) for s in range(consumed)]
        thread = batches._thread
        assert thread.is_alive()
    assert not thread.is_alive()
    n = len(loaded)
    batches.close()  # a second time changes nothing
    time.sleep(0.02)
    assert loaded == list(range(n)) and consumed <= n <= consumed + 2 + 2


def test_stays_at_most_depth_ahead():
    loaded = []
    with Prefetcher(loaded.append, 0, 100, depth=3) as batches:
        next(iter(batches))
        deadline = time.monotonic() + 10
        while len(loaded) < 1 + 3 + 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.05)
        assert len(loaded) == 1 + 3 + 1  # taken, in the queue, and one that waits for room


def test_what_the_consumer_waits_for_is_told():
    slow, fast = Times({}), Times({})
    with Prefetcher(lambda step: time.sleep(0.02), 0, 5, lambda: slow.spent_on("data")) as batches:
        list(batches)
    assert slow.seconds["data"] > 0.08
    with Prefetcher(lambda step: step, 0, 5, lambda: fast.spent_on("data")) as batches:
        for _ in batches:
            time.sleep(0.02)
    assert fast.seconds["data"] < 0.05
