"""The files of a run's vocabulary that AutoTokenizer reads: the same ids for the same text, no token added to it.

Special tokens that a text spells out are text, as in prepare (`split_special_tokens`)."""

import dataclasses
import json

import numpy as np

from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary
from moe_jax.data.store_vocabulary import read_vocabulary
from moe_jax.data.vocabularies import ByteVocabulary, TextVocabulary
from moe_jax.evaluation.huggingface import from_sentencepiece
from moe_jax.sweep.run_record import RunStore

FILE, CONFIG, MODEL = "tokenizer.json", "tokenizer_config.json", "tokenizer.model"
_BYTE_SPECIAL = ("<pad>", ByteVocabulary.end_token, "<unk>")
# Texts whose ids a tokenizer.json must share with the vocabulary before it is written in its place.
PROBES = (
    "", " ", "a", "  two  spaces \t and\ttabs\n\n\n    indented\r\n", "</s><s><pad><unk><|endoftext|><0x41>[SEP]",
    "Straße, naïve, Ǆ ﬁ ① ½ ² ™ Ａ１ ｶﾞ", "Привет, мир; Γειά σου; שלום; مرحبا; नमस्ते; สวัสดี", "漢字かな交じり文、한국어。",
    "👩‍👩‍👧‍👦 🏳️‍🌈 e\u0301 a\u0308\u0323 \u200b\u200d\ufeff\u00ad\u00a0\u3000\u2028", "▁▁ under ▁ line",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \U0010fffd \ue000 \x01\x7f",
    "def f(x: int = 0x1F) -> str:\n        return f'{x!r:>10}'  # 12345678 3.14e-10\n", "A" * 100 + " " * 37 + "." * 50,
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class VocabularyFiles:
    """Files by name, and one sentence about them."""

    files: dict[str, bytes]
    sentence: str


def of_store(store: RunStore, moved_to: str | None = None) -> VocabularyFiles:
    """The files of the vocabulary of a run's store, which is at `moved_to` now where it is not where it was.

    Raises UserError where the vocabulary's own file is not there."""
    vocabulary = _vocabulary(store, moved_to)
    if vocabulary is None:
        return VocabularyFiles({}, f"without a tokenizer: its vocabulary is {store.vocabulary.get('vocabulary')!r}")
    content, extra = _tokenizer_json(vocabulary)
    if content is None or not same_ids(content, vocabulary):
        sentence = (
            f"without a {FILE}: `tokenizers` would give other ids than the SentencePiece model, which is in {MODEL}"
        )
        return VocabularyFiles(extra, sentence)
    end = vocabulary.end_token
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
    made = {FILE: content, CONFIG: (json.dumps(config, indent=1, ensure_ascii=False) + "\n").encode()}
    return VocabularyFiles(made | extra, f"with a tokenizer of {vocabulary.size:,} ids")


def _vocabulary(store: RunStore, moved_to: str | None) -> TextVocabulary | None:
    """The vocabulary; None for a seqio vocabulary that has no file."""
    described = store.vocabulary
    if "sha256" not in described and described.get("vocabulary") not in (None, "ByteVocabulary"):
        return None
    return read_vocabulary(moved_to or store.path, described, store.end_of_document)


def _tokenizer_json(vocabulary: TextVocabulary) -> tuple[bytes | None, dict[str, bytes]]:
    """(the tokenizer.json, None where there can be none; other files)."""
    if isinstance(vocabulary, ByteVocabulary):
        return byte_tokenizer(), {}
    _, content = vocabulary.file
    if isinstance(vocabulary, SentencePieceVocabulary):
        return from_sentencepiece.convert(content), {MODEL: content}
    # Without what frames a text: prepare adds only the end of a document.
    fields = json.loads(content) | {"post_processor": None, "truncation": None, "padding": None}
    return json.dumps(fields, ensure_ascii=False).encode(), {}


def byte_tokenizer() -> bytes:
    """The tokenizer.json of ByteVocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    ids = {token: i for i, token in enumerate(_BYTE_SPECIAL)}
    ids |= {character: byte + ByteVocabulary.OFFSET for byte, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(models.BPE(ids, [], unk_token="<unk>"))  # noqa: S106 no password
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _BYTE_SPECIAL])
    return tokenizer.to_str().encode()


def _byte_characters() -> list[str]:
    """How ByteLevel spells each byte: as itself where it is printable in Latin-1, else as the next of U+0100, …."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def same_ids(content: bytes, vocabulary: TextVocabulary) -> bool:
    """Whether a tokenizer.json gives the vocabulary's ids for all PROBES."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(content.decode())
    tokenizer.encode_special_tokens = True
    return all(
        np.array_equal(tokenizer.encode(text, add_special_tokens=False).ids, vocabulary.encode(text)) for text in PROBES
    )
