"""The tokenizer of an exported folder gives the ids of the vocabulary, on any text."""

import io
import json

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary, train_bpe
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary
from moe_jax.errors import UserError
from moe_jax.evaluation.huggingface import exported, from_sentencepiece, tokenizer
from moe_jax.sweep.run_record import RunStore
from tests.conftest import ROOT
from tests.data_stores import byte_level, make_store, words
from tests.evaluation.exports import FITTING, hf_config
from tests.run_folders import make_run

CODE = [path.read_text() for path in sorted((ROOT / "moe_jax" / "laws").glob("*.py"))[:6]]
# A model without a piece for < has no counterpart for a text that spells <s>: `tokenizer.same_ids` finds it.
TEXTS = [text for _, text in words(0, 30)] + CODE + ["if a < b > c / s: " * 20] + ["Ünïcode — “quotes” ﬁne ½ 漢字 " * 3]
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"])) | st.text(st.sampled_from("ab ▁\n\té<>/s0x41"))


def model_of(**flags) -> bytes:
    """A SentencePiece model that is trained on TEXTS."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=made, minloglevel=2, num_threads=1, hard_vocab_limit=False, **flags
    )
    return made.getvalue()


OURS = {"normalization_rule_name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False}
MODELS = {
    "ours": lambda: train_bpe(500, TEXTS),
    "bpe, as Llama's": lambda: model_of(
        vocab_size=500, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, allow_whitespace_only_pieces=True,
    ),
    "bpe of its own normaliser": lambda: model_of(vocab_size=400, model_type="bpe"),
    "bpe that strips, but keeps lines": lambda: model_of(
        vocab_size=400, model_type="bpe", normalization_rule_name="identity"
    ),
    "bpe with own symbols": lambda: model_of(
        vocab_size=500, model_type="bpe", user_defined_symbols=["<sep>", "def"], byte_fallback=True, **OURS
    ),
    "unigram": lambda: model_of(vocab_size=400, model_type="unigram"),
    "unigram of bytes": lambda: model_of(vocab_size=600, model_type="unigram", byte_fallback=True, **OURS),
}  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def converted(request):
    """(the vocabulary, its tokenizer.json)."""
    model = MODELS[request.param]()
    vocabulary, content = SentencePieceVocabulary(model, request.param), from_sentencepiece.convert(model)
    made = tokenizers.Tokenizer.from_str(content.decode())
    made.encode_special_tokens = True
    return vocabulary, made, content


@settings(deadline=None, max_examples=300)
@given(text=ANY_TEXT)
@example(text="\x85")
@example(text="a \n  b \n")
@example(text="▁ ▁a▁▁")
@example(text=" \u2028 a\x1c\n")
def test_a_sentencepiece_model_gives_the_same_ids(converted, text):
    vocabulary, made, _ = converted
    assert made.encode(text, add_special_tokens=False).ids == vocabulary.encode(text).tolist()


def test_it_gives_them_on_whole_files(converted):
    vocabulary, made, content = converted
    assert tokenizer.same_ids(content, vocabulary)
    for text in [*CODE, *tokenizer.PROBES]:
        ids = made.encode(text, add_special_tokens=False).ids
        assert ids == vocabulary.encode(text).tolist()
        if vocabulary.unknown not in ids:
            assert made.decode(ids, skip_special_tokens=True) == vocabulary.decode(np.array(ids, np.int64))


@settings(deadline=None, max_examples=300)
@given(text=ANY_TEXT)
def test_bytes_have_the_same_ids(text):
    made = tokenizers.Tokenizer.from_str(tokenizer.byte_tokenizer().decode())
    made.encode_special_tokens = True
    ids = made.encode(text, add_special_tokens=False).ids
    assert ids == ByteVocabulary().encode(text).tolist() and made.decode(ids) == text
    assert made.get_vocab_size() == ByteVocabulary.size


def test_a_model_without_a_counterpart_is_written_as_it_is(tmp_path):
    model = model_of(vocab_size=120, model_type="char")
    assert from_sentencepiece.convert(model) is None
    vocabulary = SentencePieceVocabulary(model, "char")
    (tmp_path / "vocabulary.model").write_bytes(model)
    store = RunStore(str(tmp_path), "", vocabulary.size, vocabulary.describe(), vocabulary.end_of_document)
    made = tokenizer.of_store(store)
    assert made.files == {"tokenizer.model": model} and "without a tokenizer.json" in made.sentence


def test_a_tokenizer_json_is_written_without_what_frames_a_text(tmp_path):
    from tokenizers import processors

    theirs = byte_level()
    theirs.post_processor = processors.TemplateProcessing("<|endoftext|> $A", None, [("<|endoftext|>", 0)])
    content = theirs.to_str().encode()
    vocabulary = TokenizerJson(content, "theirs")
    (tmp_path / "tokenizer.json").write_bytes(content)
    store = RunStore(str(tmp_path), "", vocabulary.size, vocabulary.describe(), vocabulary.end_of_document)
    made = tokenizer.of_store(store).files
    written = tokenizers.Tokenizer.from_str(made["tokenizer.json"].decode())
    assert theirs.encode("a b").ids[0] == 0 and written.encode("a b").ids == vocabulary.encode("a b").tolist()
    assert json.loads(made["tokenizer_config.json"])["eos_token"] == vocabulary.end_token


def test_a_vocabulary_that_is_gone_or_another_is_refused(tmp_path):
    def refused(sha256, moved_to=None):
        with pytest.raises(UserError) as e:
            tokenizer.of_store(RunStore(str(tmp_path), "", 9, {"kind": "sentencepiece", "sha256": sha256}, 1), moved_to)
        return str(e.value)

    assert "name the run's token store with --store" in refused("0" * 64)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "vocabulary.model").write_bytes(b"other")
    assert "is damaged or another vocabulary" in refused("0" * 64, str(tmp_path / "new"))
    made = tokenizer.of_store(RunStore("", "", 9, {"kind": "seqio", "vocabulary": "PassThroughVocabulary"}, 1))
    assert not made.files and "PassThroughVocabulary" in made.sentence


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("vocabulary", ["byte", "bpe:400", "tokenizer.json"])
def test_autotokenizer_gives_the_ids_of_the_store(vocabulary, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: moe_jax[bench]")
    spec = vocabulary
    if vocabulary == "tokenizer.json":
        spec = tmp_path / vocabulary
        spec.write_text(byte_level().to_str())
    store = make_store(tmp_path / "store", vocabulary=str(spec))
    make_run(tmp_path / "run", hf_config(*FITTING["llama"][1]), tmp_path / "store")
    exported.export(str(tmp_path / "run"), str(tmp_path / "out"))
    made = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    run = RunStore(store.path, "", store.info.vocab_size, store.info.vocabulary, store.info.end_of_document)
    ours = tokenizer._vocabulary(run, None)
    assert made.eos_token_id == store.info.end_of_document
    for text in [*tokenizer.PROBES, *CODE]:
        ids = made(text).input_ids
        assert ids == ours.encode(text).tolist(), text[:80]
        assert made.decode(ids) == ours.decode(np.array(ids, np.int64))
