"""A finished store gives back the vocabulary that it was made with."""

import pytest

from moe_jax.data.store_vocabulary import read_vocabulary
from moe_jax.errors import UserError
from tests.data_stores import byte_level, make_store

TEXT = "a few words, größer\n"


def vocabulary_of(store):
    return read_vocabulary(store.path, store.info.vocabulary, store.info.end_of_document)


@pytest.mark.parametrize("kind", ["byte", "bpe:300", "tokenizer.json"])
def test_text_comes_back(tmp_path, kind):
    if kind == "tokenizer.json":
        (tmp_path / kind).write_text(byte_level().to_str())
        kind = str(tmp_path / kind)
    store = make_store(tmp_path / "s", vocabulary=kind)
    vocabulary = vocabulary_of(store)
    assert vocabulary.decode(vocabulary.encode(TEXT)) == TEXT
    assert vocabulary.describe() == store.info.vocabulary and vocabulary.size == store.info.vocab_size
    assert vocabulary.end_of_document == store.info.end_of_document
    spelt = "".join(vocabulary.spell(token) for token in vocabulary.encode("few words").tolist())
    assert spelt == "few words" and vocabulary.spell(vocabulary.end_of_document) == store.info.end_token
    assert all(vocabulary.spell(token) for token in range(vocabulary.size))


def test_bytes_are_spelt(words_store):
    from moe_jax.data.store import open_store

    vocabulary = vocabulary_of(open_store(str(words_store)))
    assert [vocabulary.spell(t) for t in vocabulary.encode("a\n木")] == ["a", "\n", "<0xE6>", "<0x9C>", "<0xA8>"]


def test_a_damaged_or_missing_file_is_refused(tmp_path):
    store = make_store(tmp_path / "s", vocabulary="bpe:300")
    file = tmp_path / "s" / "vocabulary.model"
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"vocabulary\.model: is damaged"):
        vocabulary_of(store)
    file.unlink()
    with pytest.raises(UserError, match="the file of its vocabulary is missing"):
        vocabulary_of(store)


def test_a_tasks_own_vocabulary_has_no_text(tmp_path):
    store = make_store(tmp_path / "s")
    told = {"kind": "seqio", "vocabulary": "PassThroughVocabulary"}
    with pytest.raises(UserError, match="PassThroughVocabulary"):
        read_vocabulary(store.path, told, store.info.end_of_document)
    told["vocabulary"] = "ByteVocabulary"
    assert read_vocabulary(store.path, told, store.info.end_of_document).size == 259
