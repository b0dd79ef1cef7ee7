"""A text's ids are those that the encoder gives the whole of it, however long it is."""

import io
import itertools

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary, train_bpe
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary
from tests.data_stores import byte_level, words

TEXTS = [text for _, text in words(0, 20)] + ["river  lantern\ncopper meadow 2024, été Å ﬁ１\n"] * 20
# Short strings, repeated and put together: texts on both sides of 2,048 characters, with and without spaces and lines.
LONG_TEXTS = st.lists(
    st.tuples(
        st.text(st.sampled_from("abcr \n\t▁,é１ﬁ木"), min_size=1, max_size=12), st.sampled_from([1, 2, 90, 700])
    ).map(lambda part: part[0] * part[1]),
    max_size=4,
).map("".join)
SENTENCEPIECE = [
    {"model_type": kind, "byte_fallback": fallback, "add_dummy_prefix": prefix, **spaces}
    for kind, fallback, prefix, spaces in itertools.product(
        ("bpe", "unigram"),
        (False, True),
        (False, True),
        (
            {"normalization_rule_name": "identity", "remove_extra_whitespaces": False},
            {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": False},
            {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
        ),
    )
]
MANY = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module", params=SENTENCEPIECE, ids=lambda p: "-".join(str(v) for v in p.values()))
def other_model(request):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=360, hard_vocab_limit=False, num_threads=1,
        minloglevel=2, **request.param,
    )  # fmt: skip
    return model.getvalue()


@MANY
@given(text=LONG_TEXTS)
def test_sentencepiece(other_model, text):
    whole = sentencepiece.SentencePieceProcessor(model_proto=other_model).encode(text)
    assert SentencePieceVocabulary(other_model, "other").encode(text).tolist() == whole


@MANY
@given(text=LONG_TEXTS)
def test_the_bpe_that_prepare_trains(text):
    model = _ours()
    whole = sentencepiece.SentencePieceProcessor(model_proto=model).encode(text)
    assert SentencePieceVocabulary(model, "ours").encode(text).tolist() == whole


@MANY
@given(text=LONG_TEXTS)
def test_bytes(text):
    assert (ByteVocabulary().encode(text) - ByteVocabulary.OFFSET).tolist() == list(text.encode())


def test_a_long_document_has_one_dummy_prefix():
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=300, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    vocabulary = SentencePieceVocabulary(model.getvalue(), "dummy prefix")
    text = "river lantern copper\n" * 500
    assert vocabulary.decode(vocabulary.encode(text)) == text


@pytest.mark.parametrize("kind", ["byte level", "byte level, prefix space", "metaspace"])
def test_tokenizer_json_of_more_than_a_million_characters(kind):
    tokenizer = _tokenizer(kind)
    vocabulary = TokenizerJson(tokenizer.to_str().encode(), kind)
    text = "river lantern copper\n" * 52_000
    assert len(text) > 2**20
    assert vocabulary.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", ["byte level", "byte level, prefix space", "metaspace"])
@MANY
@given(text=LONG_TEXTS)
def test_tokenizer_json(kind, text):
    tokenizer = _tokenizer(kind)
    vocabulary = TokenizerJson(tokenizer.to_str().encode(), kind)
    assert vocabulary.encode(text).tolist() == tokenizer.encode(text, add_special_tokens=False).ids


def _ours(made=[]):  # noqa: B006 the model is trained once
    if not made:
        made.append(train_bpe(360, TEXTS))
    return made[0]


def _tokenizer(kind):
    from tokenizers import decoders, pre_tokenizers

    tokenizer = byte_level()
    if kind == "byte level, prefix space":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    if kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return tokenizer
