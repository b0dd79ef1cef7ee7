"""What training reads of a large store: no more than its windows. experiments/benchmarks/data.py measures the speed."""

import numpy as np
import tensorstore as ts

from moe_jax.data.batches import Batches, HeldOut
from moe_jax.data.store import CHUNK_TOKENS, SHARD_TOKENS, open_store
from tests.sparse_store import random_windows, sparse_store

CHUNK_BYTES = 2 * CHUNK_TOKENS + 4  # uint16, and a checksum


def test_the_sparse_store_is_a_store(tmp_path):
    sparse_store(tmp_path / "s", 3 * SHARD_TOKENS + 50)
    store = open_store(str(tmp_path / "s"))
    windows = store.windows("train", np.array([5, SHARD_TOKENS - 2, 3 * SHARD_TOKENS + 46]), 4)
    assert windows.tolist() == [[3] * 4, [3, 3, 4, 4], [6] * 4]
    rows = Batches(store, 256, 1000, seed=0).batch(0)
    assert 200 < (rows[:, 0] == 4).sum() < 470  # a third


def test_a_window_costs_its_chunks_however_large_the_store(tmp_path):
    """The indices of all 596 shards stay in memory once they are read, so a window is one read, at times two."""
    sparse_store(tmp_path / "s", 10**10)
    store = open_store(str(tmp_path / "s"))
    warm_up, rest = np.split(random_windows(store, 15), [10])
    for starts in warm_up:
        store.windows("train", starts, 257)
    before = reads_of_files()
    for starts in rest:
        store.windows("train", starts, 257)
    reads, read_bytes = (after - first for after, first in zip(reads_of_files(), before, strict=True))
    assert 0.8 * rest.size < reads < 1.2 * rest.size
    assert 0.8 * rest.size * CHUNK_BYTES < read_bytes < 1.2 * rest.size * CHUNK_BYTES


def test_held_out_windows_of_a_large_part_cost_their_chunks_and_no_more(tmp_path):
    """Windows drawn from 2e9 held-out tokens: one read each of tokens and of bytes, beside the shards' indices."""
    sparse_store(tmp_path / "s", SHARD_TOKENS, heldout=2 * 10**9)
    held_out, shards = HeldOut(open_store(str(tmp_path / "s")), 256, 2000), 2 * -(-2 * 10**9 // SHARD_TOKENS)
    before, _ = reads_of_files()
    windows = held_out.batch()
    assert held_out.bytes == windows[:, 1:].sum()  # every number of a shard is the same, of tokens and of bytes
    reads = reads_of_files()[0] - before
    assert reads < 2.2 * len(windows) + 1.2 * shards


def test_the_bytes_of_all_held_out_windows_are_few_reads(tmp_path):
    """Windows side by side are read together: a read of many chunks, not one a window."""
    sparse_store(tmp_path / "s", SHARD_TOKENS, heldout=2**22)
    held_out = HeldOut(open_store(str(tmp_path / "s")), 256, 2**14 - 1)
    before, _ = reads_of_files()
    assert held_out.bytes == 3 * held_out.tokens
    assert reads_of_files()[0] - before < 1.2 * 2**22 / CHUNK_TOKENS


def reads_of_files() -> tuple[int, int]:
    """How often TensorStore has read of a file in this process, and how many bytes."""
    found = ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/")
    values = {metric["name"].rpartition("/")[2]: metric["values"] for metric in found}
    return values["batch_read"][0]["value"], values["bytes_read"][0]["value"]
