"""unique_tokens against the tokens that a run really reads."""

import dataclasses

import numpy as np
import pytest

from configs import common
from moe_jax.config import fields
from moe_jax.data.batches import Batches
from moe_jax.data.unique_tokens import unique_tokens
from tests.data_stores import Texts, make_store, words

L = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("data") / "s", Texts(tuple(words(s, 40) for s in range(4))))


def counted(store, windows, rows):
    """Different places of the store among the targets of the first `rows` windows."""
    batches = Batches(store, L, 1, seed=3, repeat=True, windows=windows)
    epochs, places = np.divmod(np.arange(rows), batches._n_starts)
    starts = np.concatenate([permuted(batches, places[epochs == epoch], epoch) for epoch in np.unique(epochs).tolist()])
    return len(np.unique(starts[:, None] + np.arange(1, L + 1)))


def permuted(batches, places, epoch):
    from moe_jax.data.permutation import permute

    return permute(places, batches._n_starts, batches.seed, epoch) * batches._stride


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0, 2.5])
@pytest.mark.parametrize("windows", ["packed", "random"])
def test_as_many_as_a_run_reads(store, windows, share):
    available = store.info.tokens["train"]
    rows = int(share * available / L)
    data = dataclasses.replace(fields.from_dict(common.get_config().to_dict()).data, windows=windows)
    data = dataclasses.replace(data, sequence_length=L)
    found = unique_tokens(rows * L, available, data)
    # Random windows overlap by chance: the number is an expectation there.
    assert found == pytest.approx(counted(store, windows, rows), rel=1e-12 if windows == "packed" else 0.03)
    assert found <= rows * L
    if windows == "packed" and share < 1:
        assert found == rows * L
