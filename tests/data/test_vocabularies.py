import io
import pickle

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.data import segments, vocabularies
from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary, train_bpe
from moe_jax.data.vocabularies import ByteVocabulary
from moe_jax.errors import UserError
from tests.data_stores import words

TEXTS = [text for _, text in words(0, 30)] + ["def f(x):\n    return x + 1\n\n\n" * 20]
# U+2581 is SentencePiece's own sign for a space; surrogates are in no UTF-8 text.
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁"))


@pytest.fixture(scope="module")
def bpe():
    return SentencePieceVocabulary(train_bpe(400, TEXTS), "bpe:400")


@given(text=ANY_TEXT)
def test_bytes_lose_nothing(text):
    _check_lossless(ByteVocabulary(), text)


@settings(deadline=None)
@given(text=ANY_TEXT)
def test_bpe_loses_nothing(bpe, text):
    _check_lossless(bpe, text)


def _check_lossless(vocabulary, text):
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert vocabulary.end_of_document not in tokens.tolist()


@settings(deadline=None, max_examples=300)
@given(text=st.text(st.sampled_from("ab:)\n\t ▁é"), max_size=60))
def test_words_have_the_ids_that_sentencepiece_gives_the_whole_text(bpe, text):
    assert bpe._words is not None
    assert bpe.encode(text).tolist() == bpe._processor.encode(text)


@pytest.mark.parametrize(
    "unlike_ours",
    [{"add_dummy_prefix": True}, {"remove_extra_whitespaces": True}, {"treat_whitespace_as_suffix": True}],
)
def test_other_models_have_their_own_ids_too(unlike_ours):
    ours = {"add_dummy_prefix": False, "remove_extra_whitespaces": False}
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=100, minloglevel=2, **{**ours, **unlike_ours}
    )
    vocabulary = SentencePieceVocabulary(model.getvalue(), "other")
    assert vocabulary._words is None
    for text in ("", *(t[:1000] for t in TEXTS)):
        assert vocabulary.encode(text).tolist() == vocabulary._processor.encode(text)


def test_bpe_is_shorter_than_bytes_and_as_large_as_asked(bpe):
    assert len(bpe.encode(TEXTS[-1])) < 0.6 * len(TEXTS[-1])
    assert bpe.size == 400


def test_the_same_texts_train_the_same_model(bpe):
    assert train_bpe(400, TEXTS) == bpe.file[1]
    assert train_bpe(400, TEXTS[:-1]) != bpe.file[1]


def test_goes_to_another_process(bpe):
    text = TEXTS[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(bpe)).encode(text), bpe.encode(text))  # noqa: S301


@given(text=st.text(), n=st.integers(1, 20))
def test_segments_are_the_text(text, n):
    parts = list(segments.segments(text, n))
    assert "".join(parts) == text
    assert all(0 < len(p) <= n for p in parts)


def test_segments_end_at_lines():
    assert list(segments.segments("ab\ncd\nefghij\n", 7)) == ["ab\ncd\n", "efghij\n"]


@pytest.mark.parametrize("spec", ["bpe:", "bpe:10", "bpe:x", "bpe:-5", "bpe:1e4", "bpe:²"])
def test_an_impossible_bpe_is_refused(spec):
    with pytest.raises(UserError, match="bpe:SIZE"):
        vocabularies.bpe_size(spec)


def test_bpe_of_too_little_text_is_refused():
    with pytest.raises(UserError, match="bpe:5000"):
        train_bpe(5000, ["abc"])


def test_unusable_vocabularies_are_refused(tmp_path):
    (tmp_path / "wrong.model").write_bytes(b"not a model")
    for spec in ("wrong.model", "none.model"):
        with pytest.raises(UserError, match=spec):
            vocabularies.load(str(tmp_path / spec))
    with pytest.raises(UserError, match="words"):
        vocabularies.load("words")


@pytest.mark.slow  # imports TensorFlow
@pytest.mark.filterwarnings("ignore")
def test_bytes_are_numbered_as_seqio_does():
    import seqio

    theirs, text = seqio.ByteVocabulary(extra_ids=0), "A tree, een boom: 木 🌳\n"
    assert theirs.encode(text) == ByteVocabulary().encode(text).tolist()
    assert theirs.vocab_size == ByteVocabulary.size
    assert theirs.eos_id == ByteVocabulary.end_of_document
