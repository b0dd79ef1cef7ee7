"""Every byte of a text belongs to exactly one of its tokens, whatever the tokenizer drops, changes or makes up."""

import functools
import io
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from moe_jax.cli import prepare
from moe_jax.data import source_bytes
from moe_jax.data.batches import HeldOut
from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary, train_bpe
from moe_jax.data.store import open_store
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary
from moe_jax.errors import DONE, UserError
from moe_jax.training import held_out
from tests.data_stores import Texts, byte_level, make_store, words

TEXTS = [text for _, text in words(0, 20)] + ["Old  ferries\ncross 2024, été Å ﬁ１\n"] * 20
ANY_TEXT = st.text(st.sampled_from("abR \n\t▁,é１ﬁ木🌳Å\u0301㌀İ"), max_size=40)
# What these tokenizers' tokens spell is not the text: they leave something out, or add it.
LOSSY = ("spaces dropped", "##", "</w>")


def _bpe(**model):
    return Tokenizer(models.BPE(**model)), functools.partial(trainers.BpeTrainer, vocab_size=600, show_progress=False)


def _trained(tokenizer, trainer, *special):
    tokenizer.train_from_iterator(TEXTS, trainer(special_tokens=[*special]))
    return tokenizer


def _tokenizer(kind):
    if kind == "byte level":
        return byte_level()
    if kind == "byte level, prefix space, trimmed":
        tokenizer = byte_level()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
        return tokenizer
    if kind == "metaspace, byte fallback":
        tokenizer, trainer = _bpe(unk_token="<unk>", byte_fallback=True)  # noqa: S106
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        return _trained(tokenizer, trainer, "<unk>", "</s>", *(f"<0x{b:02X}>" for b in range(256)))
    if kind == "spaces dropped":
        tokenizer, trainer = _bpe(unk_token="<unk>")  # noqa: S106
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        return _trained(tokenizer, trainer, "<unk>", "<eos>")
    if kind == "</w>":
        tokenizer, trainer = _bpe(end_of_word_suffix="</w>")
        spaces_dropped = pre_tokenizers.Split(Regex(r"\s+"), "removed")
        in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([spaces_dropped, in_bytes])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = functools.partial(trainer, end_of_word_suffix="</w>", initial_alphabet=alphabet)
        return _trained(tokenizer, trainer, "<|endoftext|>")
    if kind == "##":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = functools.partial(trainers.WordPieceTrainer, vocab_size=60, show_progress=False)
        return _trained(tokenizer, trainer, "[UNK]", "[SEP]")
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = functools.partial(trainers.UnigramTrainer, vocab_size=100, unk_token="<unk>", show_progress=False)  # noqa: S106
    return _trained(tokenizer, trainer, "<unk>", "<eos>")


def _sentencepiece(kind, dummy_prefix):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, model_type=kind, vocab_size=120, hard_vocab_limit=False,
        byte_fallback=False, add_dummy_prefix=dummy_prefix, num_threads=1, minloglevel=2,
    )  # fmt: skip
    return SentencePieceVocabulary(model.getvalue(), kind)


KINDS = {
    "byte": ByteVocabulary,
    "bpe": lambda: SentencePieceVocabulary(train_bpe(360, TEXTS), "bpe:360"),
    **{
        f"sentencepiece {kind}, {prefix=}": functools.partial(_sentencepiece, kind, prefix)
        for kind in ("bpe", "unigram")
        for prefix in (False, True)
    },
    **{
        kind: lambda kind=kind: TokenizerJson(_tokenizer(kind).to_str().encode(), kind)
        for kind in (
            "byte level", "byte level, prefix space, trimmed", "metaspace, byte fallback", "unigram", *LOSSY,
        )
    },
}  # fmt: skip


@functools.cache
def vocabulary(kind):
    return KINDS[kind]()


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=40)
@given(texts=st.lists(ANY_TEXT, max_size=4))
def test_the_bytes_of_the_tokens_are_those_of_the_text(kind, texts):
    """Of each document, so also of all, however a text is cut into documents."""
    for text in [*texts, "".join(texts)]:
        tokens, token_bytes = vocabulary(kind).encode_with_bytes(text)
        assert tokens.tolist() == vocabulary(kind).encode(text).tolist()
        assert len(token_bytes) == len(tokens) + 1
        assert token_bytes.min() >= 0 and token_bytes.sum() == len(text.encode())


@pytest.mark.parametrize("kind", ["byte", "bpe", "byte level"])
@settings(deadline=None, max_examples=40)
@given(text=st.text(st.sampled_from("abR \n\té１ﬁ木🌳Å\u0301㌀İ"), max_size=40))
def test_a_token_that_ends_a_character_ends_at_its_last_byte(kind, text):
    """These vocabularies lose nothing: what the first tokens spell is where they end."""
    tokens, token_bytes = vocabulary(kind).encode_with_bytes(text)
    ends, found = np.cumsum(token_bytes), []
    for n in range(1, len(tokens) + 1):
        spelt = vocabulary(kind).decode(tokens[:n])
        if text.startswith(spelt):  # otherwise a part of a character
            assert ends[n - 1] == len(spelt.encode())
            found.append(n)
    assert found[-1:] == [len(tokens)][: len(text)]


@pytest.mark.parametrize("kind", LOSSY)
@settings(deadline=None, max_examples=40)
@given(words=st.lists(st.sampled_from(["Old", "ferries", "cross", "2024,", "木été"])), spaces=st.sampled_from(" \n\t"))
def test_what_is_dropped_belongs_to_the_token_after_it(kind, words, spaces):
    text = (3 * spaces).join(words)
    _, token_bytes = vocabulary(kind).encode_with_bytes(text + spaces)
    assert not any(text.encode()[:end].endswith(spaces.encode()) for end in np.cumsum(token_bytes[:-1]))
    assert token_bytes[-1] == 1  # nothing but the end comes after the last space


def test_bytes_by_hand():
    """A gap, three tokens of one character, one that ends before another, and a rest."""
    assert source_bytes.of_tokens(np.array([3, 8, 8, 8, 7, 9]), 12).tolist() == [3, 5, 0, 0, 0, 1, 3]
    assert source_bytes.of_tokens(np.array([]), 12).tolist() == [12]
    assert source_bytes.byte_of_character("aé木🌳").tolist() == [0, 1, 3, 6, 10]


def test_prepare_says_what_the_tokens_do_not_spell(tmp_path, capsys):
    (tmp_path / "tokenizer.json").write_text(_tokenizer("spaces dropped").to_str())
    (tmp_path / "a.jsonl").write_text('{"text": "Old 木 ferries 木 cross"}\n' * 4)
    flags = [f"--mixture=files:{tmp_path}/a.jsonl", f"--store={tmp_path}/s", "--workers=1"]
    assert prepare.main([*flags, f"--vocabulary={tmp_path}/tokenizer.json"]) == DONE
    store = open_store(str(tmp_path / "s"))
    of = "does not know: 6 of train (33.3%), 2 of heldout (33.3%)"  # Old <unk> ferries <unk> cross <eos>
    said = capsys.readouterr().out
    assert store.info.unknown == {"train": 6, "heldout": 2} and of in said
    assert "the held-out tokens spell 15 bytes of a text of 25" in said  # Old, ferries and cross
    assert prepare.main([*flags[:1], f"--store={tmp_path}/bytes", "--workers=1"]) == DONE
    said = capsys.readouterr().out
    assert "does not know" not in said and "spell" not in said


def test_windows_without_text_have_no_bits_per_byte(tmp_path):
    store = make_store(tmp_path / "s", Texts(((("train", "a b"), ("heldout", "a")),)))
    with pytest.raises(UserError, match="hold no text, so there are no bits per byte"):
        _ = HeldOut(store, 1, 1).bytes  # its only target is the token that ends the document


@pytest.mark.parametrize("kind", LOSSY)
def test_bits_per_byte_are_those_of_the_source_text(kind, tmp_path):
    """All held-out tokens but the first are targets, and `Old` is spelt in the tokens that come before `ferries`."""
    text, other = "Old  ferries cross\n\tthe grey water at dawn. Nobody waits.\n", "Two of them\ncarry Mail. "
    (tmp_path / "tokenizer.json").write_text(_tokenizer(kind).to_str())
    source = Texts(((("train", text), ("heldout", text)), (("heldout", other),)))
    store = make_store(tmp_path / "s", source, str(tmp_path / "tokenizer.json"))
    assert store.info.bytes == {"train": 58, "heldout": 58 + 24}
    tokens = store.info.tokens["heldout"]
    first = TokenizerJson.read(str(tmp_path / "tokenizer.json")).encode("Old")[0]
    assert store.windows("heldout", np.array([0]), 1)[0, 0] == first
    windows = HeldOut(store, tokens - 1, 1)
    first_bytes = {"spaces dropped": 3, "##": 1, "</w>": 3}[kind]  # Old, o ##l ##d, Old</w>
    assert windows.bytes == 58 + 24 - first_bytes
    values = held_out.evaluate(_trainer(nats_per_token=2.5), {}, windows, None)
    summed_nats = 2.5 * (tokens - 1)
    assert values["bits_per_byte"] * math.log(2) * (58 + 24 - first_bytes) == pytest.approx(summed_nats, rel=1e-12)


def _trainer(nats_per_token):
    """A model whose loss is the same on every token."""
    train = SimpleNamespace(batch_sequences=1, microbatches=1)
    return SimpleNamespace(
        config=SimpleNamespace(train=train),
        evaluate_sharding=jax.sharding.SingleDeviceSharding(jax.devices()[0]),
        evaluate=lambda dispatch, weights, windows_BxS1: (
            np.full(len(windows_BxS1), nats_per_token * (windows_BxS1.shape[1] - 1)),
            0.0,
        ),
    )
