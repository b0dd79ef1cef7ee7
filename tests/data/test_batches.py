from types import SimpleNamespace

import numpy as np
import pytest

from moe_jax.data import store as store_lib
from moe_jax.data.batches import WINDOWS_AT_ONCE, Batches, HeldOut
from moe_jax.errors import UserError
from tests.data_stores import Texts, make_store, words

L = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "s", Texts(tuple(words(s, 10) for s in range(2))))


@pytest.fixture(scope="module")
def windows(store):
    """All windows of the train split in store order, [n_windows, L + 1]."""
    n = (store.info.tokens["train"] - 1) // L
    return store.windows("train", np.arange(n) * L, L + 1)


def test_an_epoch_is_every_window_once_and_the_next_has_another_order(store, windows):
    n = len(windows)
    batches = Batches(store, L, 7, seed=0, repeat=True)
    rows = np.concatenate([batches.batch(step) for step in range(-(-3 * n // 7))])
    epochs = [rows[e * n : (e + 1) * n] for e in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.unique(epoch, axis=0), np.unique(windows, axis=0))
        assert sorted(map(bytes, epoch)) == sorted(map(bytes, windows))
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[0], windows)


def test_every_token_but_the_first_and_the_tail_is_a_target_once(store, windows):
    train = store.windows("train", np.array([0]), store.info.tokens["train"])[0]
    np.testing.assert_array_equal(windows[:, 1:].ravel(), train[1 : len(windows) * L + 1])
    assert len(train) - 1 - len(windows) * L < L


def test_random_windows_begin_anywhere_each_place_once(store):
    train = store.windows("train", np.array([0]), store.info.tokens["train"])[0]
    places = len(train) - L
    batches = Batches(store, L, 50, seed=0, windows="random")
    rows = np.concatenate([batches.batch(step) for step in range(-(-places // 50))])[:places]
    everywhere = train[np.arange(places)[:, None] + np.arange(L + 1)]
    assert sorted(map(bytes, rows)) == sorted(map(bytes, everywhere))
    assert batches.tokens_available == Batches(store, L, 50, seed=0).tokens_available


def test_hosts_read_their_rows_of_the_same_batch(store):
    batches = Batches(store, L, 12, seed=3)
    for step in (0, 5, batches.n_windows // 12):  # the last one crosses into the second epoch
        whole = batches.batch(step)
        assert whole.shape == (12, L + 1)
        assert whole.dtype == np.int32
        for hosts in (2, 3, 4):
            parts = [batches.batch(step, slice(h * 12 // hosts, (h + 1) * 12 // hosts)) for h in range(hosts)]
            np.testing.assert_array_equal(np.concatenate(parts), whole)
        np.testing.assert_array_equal(batches.batch(step, np.array([7, 2])), whole[[7, 2]])


def test_only_the_asked_rows_are_read(store, monkeypatch):
    """The asked rows of this step and of the next ones, since small batches are read ahead."""
    n = WINDOWS_AT_ONCE // 2
    whole = Batches(store, L, 12, seed=0)
    asked = np.concatenate([whole.batch(step)[3:5] for step in range(n)])
    read, windows = [], store.windows
    monkeypatch.setattr(store, "windows", lambda *args: read.append(windows(*args)) or read[-1])
    Batches(store, L, 12, seed=0).batch(0, slice(3, 5))
    assert len(read) == 1
    np.testing.assert_array_equal(read[0], asked)


def test_a_step_does_not_depend_on_the_ones_before(store):
    forwards = Batches(store, L, 4, seed=1)
    seen = [forwards.batch(step) for step in range(10)]
    np.testing.assert_array_equal(Batches(store, L, 4, seed=1).batch(9), seen[9])
    assert not np.array_equal(Batches(store, L, 4, seed=2).batch(9), seen[9])


def test_the_batch_size_only_cuts_the_same_stream(store):
    small = np.concatenate([Batches(store, L, 4, seed=0).batch(s) for s in range(6)])
    large = np.concatenate([Batches(store, L, 12, seed=0).batch(s) for s in range(2)])
    np.testing.assert_array_equal(small, large)


def test_more_tokens_than_the_store_holds_are_refused_unless_repeated(store):
    batches = Batches(store, L, 4, seed=0)
    batches.check(batches.tokens_available)
    with pytest.raises(UserError) as e:
        batches.check(batches.tokens_available + 1)
    assert str(batches.tokens_available + 1) in str(e.value)
    assert f"{batches.tokens_available} tokens" in str(e.value)
    Batches(store, L, 4, seed=0, repeat=True).check(10**15)


def test_a_store_shorter_than_a_window_is_refused(store):
    with pytest.raises(UserError, match="does not fit once"):
        Batches(store, store.info.tokens["train"], 1, seed=0)


def test_all_held_out_windows_are_the_split_in_another_order(store):
    n = (store.info.tokens["heldout"] - 1) // L
    drawn, in_order = HeldOut(store, L, n).batch(), store.windows("heldout", np.arange(n) * L, L + 1)
    assert sorted(map(bytes, drawn)) == sorted(map(bytes, in_order))
    assert not np.array_equal(drawn, in_order)


def test_fewer_held_out_windows_are_a_part_of_more_with_their_own_bytes(store):
    n = (store.info.tokens["heldout"] - 1) // L
    whole = HeldOut(store, L, n).batch()
    for some in (1, 5, n - 1):
        heldout = HeldOut(store, L, some)
        windows = heldout.batch()
        np.testing.assert_array_equal(windows, whole[:some])
        np.testing.assert_array_equal(heldout.batch(slice(some // 2, some)), windows[some // 2 :])
        assert heldout.tokens == windows[:, 1:].size
        assert heldout.bytes == (windows[:, 1:] != 1).sum() > 0  # a byte a token, but for ends of documents


def test_held_out_windows_are_drawn_evenly():
    """Of 10,000 windows, a hundred have about ten in each tenth: no front is preferred. (A chi-square of 9 degrees of
    freedom is above 27.9 once in a thousand draws.)"""
    n = 10_000
    info = SimpleNamespace(tokens={"heldout": n * L + 1})
    starts = HeldOut(SimpleNamespace(info=info, path="s"), L, 100)._starts()
    counts = np.bincount(starts // L * 10 // n, minlength=10)
    assert len(np.unique(starts)) == 100 and ((counts - 10) ** 2 / 10).sum() < 27.9


@pytest.mark.parametrize(("chunk", "stretch"), [(0, 2**20), (0, 7), (40, 50), (2**12, 2**20)])
def test_the_byte_count_is_the_same_however_it_is_read(store, monkeypatch, chunk, stretch):
    heldout = HeldOut(store, L, 12)
    wanted = (heldout.batch()[:, 1:] != 1).sum()
    monkeypatch.setattr(store_lib, "CHUNK_TOKENS", chunk)
    monkeypatch.setattr(store_lib, "_STRETCH_TOKENS", stretch)
    monkeypatch.setattr(store_lib, "_READS_AT_ONCE", 3)
    assert heldout.bytes == wanted


def test_more_held_out_windows_than_there_are_is_refused(store):
    n = (store.info.tokens["heldout"] - 1) // L
    HeldOut(store, L, n)
    with pytest.raises(UserError, match=f"eval.sequences={n + 1} is more than the {n} windows"):
        HeldOut(store, L, n + 1)


def test_small_batches_that_are_read_ahead_are_those_that_are_asked_for_alone(store):
    batches = Batches(store, L, 3, seed=1, repeat=True)
    steps = [0, 1, 2, 9, 3, 3, 400, 10]
    for step in steps:
        np.testing.assert_array_equal(batches.batch(step), Batches(store, L, 3, seed=1, repeat=True).batch(step))
