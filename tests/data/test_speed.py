"""Claims on speed that training depends on. experiments/benchmarks/data.py measures the numbers."""

import numpy as np
import pytest

from moe_jax.data.batches import Batches
from moe_jax.data.store import SHARD_TOKENS, open_store
from tests.sparse_store import sparse_store, window_times


def test_the_sparse_store_is_a_store(tmp_path):
    sparse_store(tmp_path / "s", 3 * SHARD_TOKENS + 50)
    store = open_store(str(tmp_path / "s"))
    windows = store.windows("train", np.array([5, SHARD_TOKENS - 2, 3 * SHARD_TOKENS + 46]), 4)
    assert windows.tolist() == [[3] * 4, [3, 3, 4, 4], [6] * 4]
    rows = Batches(store, 256, 1000, seed=0).batch(0)
    assert 200 < (rows[:, 0] == 4).sum() < 470  # a third


@pytest.mark.slow
def test_reading_does_not_slow_down_with_the_size_of_the_store(tmp_path):
    medians = {}
    for tokens in (10**7, 10**10):
        sparse_store(tmp_path / f"{tokens}", tokens)
        store = open_store(str(tmp_path / f"{tokens}"))
        medians[tokens] = np.median(window_times(store, 40)[10:])
    assert medians[10**10] < 3 * medians[10**7]
