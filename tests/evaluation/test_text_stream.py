"""The pieces of a text that comes token by token are the whole text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary
from moe_jax.evaluation.text_stream import TextStream
from tests.data_stores import byte_level

BYTES = ByteVocabulary()


def pieces(vocabulary, prompt, tokens):
    stream = TextStream(vocabulary, prompt)
    return [*(stream.add(token) for token in tokens), stream.rest()]


def test_a_character_waits_for_its_last_byte():
    tokens = BYTES.encode("a木b").tolist()
    assert pieces(BYTES, [], tokens) == ["a", "", "", "木", "b", ""]


def test_what_is_no_text_is_replaced():
    cut = BYTES.encode("木").tolist()[:2]
    assert pieces(BYTES, [], cut) == ["", "", "\ufffd"]
    assert "".join(pieces(BYTES, [], [*cut, *BYTES.encode("x")])) == "\ufffdx"


def test_a_prompt_is_not_repeated():
    prompt = BYTES.encode("ab").tolist()
    assert pieces(BYTES, prompt, BYTES.encode("cd").tolist()) == ["c", "d", ""]


def test_special_tokens_are_no_text():
    assert pieces(BYTES, [], [BYTES.end_of_document]) == ["", ""]


@given(data=st.binary(max_size=20), prompt=st.text(max_size=3))
def test_the_pieces_are_the_text(data, prompt):
    tokens = [byte + BYTES.OFFSET for byte in data]
    whole = BYTES.decode(np.array([*BYTES.encode(prompt), *tokens]))
    assert prompt + "".join(pieces(BYTES, BYTES.encode(prompt).tolist(), tokens)) == whole


def test_the_pieces_are_the_text_of_a_tokenizer_json():
    vocabulary = TokenizerJson(byte_level().to_str().encode(), "here")
    text = "a few wörds 木, and\nmore"
    found = pieces(vocabulary, [], vocabulary.encode(text).tolist())
    assert "".join(found) == text and len(found) > 5 and "\ufffd" not in "".join(found)
