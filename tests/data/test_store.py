import json
import os

import numpy as np
import pytest
from etils import epath

from moe_jax import files
from moe_jax.data import store as store_lib
from moe_jax.data.store import MissingStore, open_store
from moe_jax.errors import UserError
from tests.data_stores import Texts, make_store, words
from tests.hand_edits import change


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Several shards and chunks in a store of a few thousand tokens."""
    monkeypatch.setattr(store_lib, "SHARD_TOKENS", 2**10)
    monkeypatch.setattr(store_lib, "CHUNK_TOKENS", 2**6)
    monkeypatch.setattr("moe_jax.data.prepare.assembly.SHARD_TOKENS", 2**10)


def all_tokens(store, split):
    return store.windows(split, np.array([0]), store.info.tokens[split])[0]


def test_holds_every_document_in_order_each_with_its_end(tmp_path):
    source = Texts(tuple(words(s, 10) for s in range(3)))
    store = make_store(tmp_path / "s", source)
    for split in ("train", "heldout"):
        texts = [text for shard in source.shards for of, text in shard if of == split]
        expected = b"".join(bytes(text, "utf-8") + b"\xff" for text in texts)  # 0xff is in no UTF-8 text
        tokens = all_tokens(store, split)
        found = bytes(255 if t == 1 else t - 3 for t in tokens.tolist())
        assert found == expected
        assert store.info.documents[split] == len(texts)
        assert store.info.bytes[split] == len("".join(texts))
    bytes_of_tokens = np.concatenate([store.shard("heldout_bytes", k) for k in range(store_lib.n_shards(len(tokens)))])
    np.testing.assert_array_equal(bytes_of_tokens, tokens != 1)  # a byte each, but for the ends of documents
    assert store.held_out_bytes(np.array([1]), len(tokens) - 1) == store.info.bytes["heldout"] - 1
    assert store.info.tokens["train"] > 3 * 2**10


def test_windows_are_the_stretches_asked_for(tmp_path):
    store = make_store(tmp_path / "s")
    tokens = all_tokens(store, "train")
    starts = np.random.default_rng(0).integers(0, len(tokens) - 70, 200)
    windows = store.windows("train", starts, 70)
    assert windows.dtype == np.int32
    np.testing.assert_array_equal(windows, tokens[starts[:, None] + np.arange(70)])
    assert store.windows("train", np.zeros(0, np.int64), 5).shape == (0, 5)


@pytest.mark.parametrize("start", [-1, 10**9])
def test_a_window_outside_the_split_is_refused(tmp_path, start):
    with pytest.raises(ValueError, match="leave train"):
        make_store(tmp_path / "s").windows("train", np.array([start]), 5)


def test_large_vocabularies_take_four_bytes():
    assert store_lib.array_dtype("train", 2**16) == np.uint16
    assert store_lib.array_dtype("train", 2**16 + 1) == np.uint32


def test_missing_and_half_written_stores_are_told_apart(tmp_path):
    with pytest.raises(MissingStore, match="no token store at"):
        open_store(str(tmp_path / "none"))
    (tmp_path / "half" / store_lib.UNFINISHED_NAME).mkdir(parents=True)
    with pytest.raises(MissingStore, match="half-written"):
        open_store(str(tmp_path / "half"))


def _shards(folder, array="train"):
    return sorted((folder / array / "c").iterdir(), key=lambda p: int(p.name))


def _flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def _change(folder, **fields):
    content = json.loads((folder / "store.json").read_text())
    (folder / "store.json").write_text(json.dumps(content | fields))


DAMAGES = {
    "shard lost": lambda s: _shards(s)[1].unlink(),
    "shard cut": lambda s: os.truncate(_shards(s)[1], 500),
    "shard emptied": lambda s: os.truncate(_shards(s)[1], 0),
    "token flipped": lambda s: _flip(_shards(s)[1], -100),
    "index flipped": lambda s: _flip(_shards(s)[1], 30),
    "array's metadata lost": lambda s: (s / "train" / "zarr.json").unlink(),
    "array's metadata cut": lambda s: os.truncate(s / "train" / "zarr.json", 20),
    "store.json cut": lambda s: os.truncate(s / "store.json", 20),
    "store.json not UTF-8": lambda s: (s / "store.json").write_bytes(b"\xff\xfe"),
    "store.json another file": lambda s: (s / "store.json").write_text('{"format": 2, "tokens": {}}'),
    "store.json a list": lambda s: (s / "store.json").write_text("[1]"),
    "no counts": lambda s: _change(s, tokens=None),
    "a count that is no number": lambda s: _change(s, tokens={"train": "x", "heldout": 5}),
    "a field too many": lambda s: _change(s, heldout="x"),
    "another vocabulary size": lambda s: _change(s, vocab_size=119),
    "no vocabulary size": lambda s: _change(s, vocab_size="q"),
    "numbers of bytes lost": lambda s: _shards(s, "heldout_bytes")[0].unlink(),
    "numbers of bytes flipped": lambda s: _flip(_shards(s, "heldout_bytes")[0], -10),
    "another number of bytes": lambda s: _change(s, bytes={"train": 1, "heldout": 1}),
    "other settings": lambda s: _change(s, settings=[]),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_one_sentence_and_never_other_tokens(tmp_path, damage):
    make_store(tmp_path / "s")
    DAMAGES[damage](tmp_path / "s")
    with pytest.raises(UserError) as e:
        store = open_store(str(tmp_path / "s"))
        all_tokens(store, "train")
        store.held_out_bytes(np.array([0]), 2000)
    assert "prepare it again" in str(e.value)
    assert "\n" not in str(e.value)


def test_a_store_of_another_format_is_refused(tmp_path):
    make_store(tmp_path / "s")
    fields = json.loads((tmp_path / "s" / "store.json").read_text())
    (tmp_path / "s" / "store.json").write_text(json.dumps(fields | {"format": 99}))
    with pytest.raises(UserError, match="format 99"):
        open_store(str(tmp_path / "s"))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("vocabulary_size", [3]), ("tokens", [None, 3, {}, {"train": 1}, {"train": -1, "heldout": 1}, {"train": "1"}]),
        ("vocab_size", [None, "9", 10**40, 2.5, True, 0]), ("end_of_document", [-1, 4e9, [1]]), ("sha256", [None, 3]),
        ("vocabulary", [None, [1]]), ("settings", ["x"]),
    ],
)  # fmt: skip
def test_a_sealed_store_with_other_fields_is_refused(tmp_path, name, values):
    """One field more, or one of another type: as another version may have written it."""
    make_store(tmp_path / "s")
    for value in values:
        change(tmp_path / "s" / "store.json", **{name: value})
        with pytest.raises(UserError, match=r"another version of moe_jax: its store\.json has other fields"):
            open_store(str(tmp_path / "s"))


def test_a_sealed_store_with_a_field_less_is_refused(tmp_path):
    make_store(tmp_path / "s")
    path = epath.Path(tmp_path / "s" / "store.json")
    fields = files.read_sealed(path)
    for name in fields.keys() - {"format"}:
        files.write_sealed(path, {other: value for other, value in fields.items() if other != name})
        with pytest.raises(UserError, match="another version of moe_jax: its store"):
            open_store(str(tmp_path / "s"))


def test_the_content_hash_tells_tokens_and_vocabularies_apart(tmp_path):
    one = make_store(tmp_path / "a").info.sha256
    assert make_store(tmp_path / "b").info.sha256 == one
    assert make_store(tmp_path / "c", Texts((words(0, 10), words(1, 10), words(3, 10)))).info.sha256 != one
    assert make_store(tmp_path / "d", vocabulary="bpe:300").info.sha256 != one
