import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data_stores import Texts, byte_level, make_store, words

tokenizers = pytest.importorskip("tokenizers")

from moe_jax.data import vocabularies  # noqa: E402
from moe_jax.data.tokenizer_json import TokenizerJson  # noqa: E402
from moe_jax.errors import UserError  # noqa: E402

TEXTS = [text for _, text in words(0, 20)]


@pytest.fixture(scope="module")
def vocabulary():
    return TokenizerJson(byte_level().to_str().encode(), "tokenizer.json")


@settings(deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_loses_nothing(vocabulary, text):
    tokens = vocabulary.encode(text)
    assert vocabulary.decode(tokens) == text
    assert vocabulary.spelt_bytes()[tokens].sum() == len(text.encode())


def test_a_special_token_spelt_out_is_text(vocabulary):
    text = "it ends with <|endoftext|>, they say"
    tokens = vocabulary.encode(text)
    assert vocabulary.end_of_document not in tokens.tolist()
    assert vocabulary.decode(tokens) == text
    assert vocabulary.spelt_bytes()[vocabulary.end_of_document] == 0


def test_truncation_and_padding_in_the_file_are_ignored():
    tokenizer = byte_level()
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=5)
    vocabulary = TokenizerJson(tokenizer.to_str().encode(), "t")
    assert vocabulary.decode(vocabulary.encode(TEXTS[0])) == TEXTS[0]
    assert len(vocabulary.encode("a")) == 1


def test_what_tokens_spell_with_byte_fallback():
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

    pieces = {"</s>": 0, "▁": 1, "é": 2, **{f"<0x{b:02X}>": 3 + b for b in range(256)}}
    tokenizer = Tokenizer(models.BPE(pieces, [], unk_token="</s>", byte_fallback=True))  # noqa: S106
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    tokenizer.add_tokens([AddedToken("::", normalized=False)])
    vocabulary = TokenizerJson(tokenizer.to_str().encode(), "t")
    tokens = vocabulary.encode("é a::木")
    assert vocabulary.decode(tokens) == "é a::木"
    assert vocabulary.spelt_bytes()[tokens].tolist() == [2, 1, 1, 2, 1, 1, 1]
    assert vocabulary.end_of_document == 0


def test_goes_to_another_process_and_into_a_store(vocabulary, tmp_path):
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(vocabulary)).encode("a b"), vocabulary.encode("a b"))  # noqa: S301
    path = tmp_path / "tokenizer.json"
    path.write_bytes(vocabulary.file[1])
    store = make_store(tmp_path / "s", Texts((words(0, 5), words(1, 5))), str(path))
    assert (tmp_path / "s" / "tokenizer.json").read_bytes() == path.read_bytes()
    tokens = store.windows("train", np.array([0]), store.info.tokens["train"])[0]
    texts = [text for shard in (words(0, 5), words(1, 5)) for split, text in shard if split == "train"]
    assert vocabulary.decode(tokens) == "".join(texts)
    assert (tokens == vocabulary.end_of_document).sum() == 8
    assert store.info.bytes["train"] == len("".join(texts))


def test_unusable_tokenizers_are_refused(tmp_path):
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(UserError, match=r"is not a tokenizer\.json"):
        vocabularies.load(str(tmp_path / "t.json"))
    with pytest.raises(UserError, match="no special token that ends a document"):
        TokenizerJson(byte_level(end="<mask>").to_str().encode(), "t")
