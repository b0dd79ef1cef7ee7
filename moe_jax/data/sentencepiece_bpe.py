"""SentencePiece models as vocabularies, and the BPE that `prepare` trains on its source."""

import functools
import hashlib
import io
import itertools
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from moe_jax.data import source_bytes
from moe_jax.data.segments import segments
from moe_jax.errors import UserError

# The cache of words: how many, and the longest, in characters.
_WORDS, _WORD_CHARACTERS = 2**18, 32
# Spaces and what follows them. U+2581 is how pieces spell a space.
_WORD = re.compile("[ ▁]*[^ ▁]+|[ ▁]+")
# Characters of a training sentence; the trainer would drop longer ones.
_TRAINING_SEGMENT = 2**12


class SentencePieceVocabulary:
    """A SentencePiece model. Raises UserError if the bytes are not one, or if no control token ends a document.

    `name` says in errors where the model came from, `end` which control token ends a document: the model's
    end-of-sentence token if None."""

    def __init__(self, model: bytes, name: str, end: str | None = None):
        self._model = model
        self.name = name
        self.file = ("vocabulary.model", model)
        processor = self._processor
        self.size = processor.get_piece_size()
        self.end_of_document = processor.eos_id() if end is None else self._control_token(end)
        if self.end_of_document < 0:
            raise UserError(
                f"{name}: this SentencePiece model has no end-of-sentence token to end documents with; name one of its "
                "control tokens with prepare --end_of_document=TOKEN"
            )
        self.end_token = processor.id_to_piece(self.end_of_document)
        self.unknown = processor.unk_id()

    def _control_token(self, token: str) -> int:
        """Its id. Raises UserError if the model has no such control token."""
        processor = self._processor
        control = {processor.id_to_piece(i): i for i in range(self.size) if processor.is_control(i)}
        if token not in control:
            raise UserError(
                f"vocabulary {self.name}: --end_of_document names {token!r}, which is no control token of this "
                f"SentencePiece model; name one of {', '.join(control) or 'another model'}"
            )
        return control[token]

    @functools.cached_property
    def _processor(self) -> Any:
        import sentencepiece

        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self._model)
        except RuntimeError as e:
            raise UserError(f"{self.name}: this is not a SentencePiece model") from e

    @functools.cached_property
    def _words(self) -> "_Words | None":
        """A cache of words' ids; None if the ids of a text may differ from those of its words, one after the other.

        They cannot differ if no piece continues after the end of a word, nothing is added or removed at the ends of a
        text, a space is no unknown character (SentencePiece makes one id of neighbouring unknown ones), and scores are
        whole numbers, as a BPE's are: a unigram's sums over a text are rounded, and rounding may change the ids. Most
        words are common ones, so the cache is 3 times as fast as SentencePiece on whole texts.
        """
        p = self._processor
        ids = range(self.size)
        separate = (
            p.normalize("  a  b  ") == "▁▁a▁▁b▁▁"
            and not p.is_unknown(p.piece_to_id("▁"))
            and not any(re.search("[^▁ ][▁ ]", p.id_to_piece(i)) for i in ids)
            and all(p.get_score(i).is_integer() for i in ids)
        )
        return _Words(p) if separate else None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_processor", "_words")}

    def encode(self, text: str) -> np.ndarray:
        """As TextVocabulary: int32 [n]."""
        if self._words is None:
            return np.array(self._processor.encode(text), np.int32)
        parts = map(self._words.__getitem__, _WORD.findall(text))
        return np.fromiter(itertools.chain.from_iterable(parts), np.int32)

    def encode_with_bytes(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """As TextVocabulary: int32 [n], int64 [n + 1]."""
        found = self._processor.encode(text, return_type="offset_mapping", return_bytes=True)
        end_n = [end for _, end in found["offsets"]]
        return np.array(found["ids"], np.int32), source_bytes.of_tokens(end_n, len(text.encode()))

    def decode(self, tokens: np.ndarray) -> str:
        """As TextVocabulary."""
        return self._processor.decode(np.asarray(tokens).tolist())

    def spell(self, token: int) -> str:
        """As TextVocabulary."""
        return self._processor.id_to_piece(int(token)).replace("▁", " ")

    def spelt_bytes(self) -> np.ndarray:
        """How many bytes of text each id spells, int64 [size]; 0 for special tokens."""
        return np.array([self._spelt_bytes(i) for i in range(self.size)], np.int64)

    def _spelt_bytes(self, i: int) -> int:
        p = self._processor
        if p.is_control(i) or p.is_unknown(i) or p.is_unused(i):
            return 0
        return 1 if p.is_byte(i) else len(p.id_to_piece(i).replace("▁", " ").encode())

    def describe(self) -> dict[str, Any]:
        """As Vocabulary."""
        return {"kind": "sentencepiece", "sha256": hashlib.sha256(self._model).hexdigest()}


class _Words(dict):
    """word -> its ids, computed by SentencePiece the first time."""

    def __init__(self, processor: Any):
        super().__init__()
        self._processor = processor

    def __missing__(self, word: str) -> list[int]:
        ids = self._processor.encode(word)
        if len(word) <= _WORD_CHARACTERS and len(self) < _WORDS:
            self[word] = ids
        return ids


def train_bpe(size: int, texts: Iterable[str]) -> bytes:
    """Trains a SentencePiece BPE model of `size` pieces; the same texts give the same model.

    It is lossless, except that it reads U+2581 as a space: whitespace is kept and unknown characters become bytes.
    Raises UserError if there is too little text for this many pieces.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(s for text in texts for s in segments(text, _TRAINING_SEGMENT)),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            max_sentence_length=4 * _TRAINING_SEGMENT,  # in bytes
            character_coverage=0.9995,
            byte_fallback=True,
            normalization_rule_name="identity",
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            allow_whitespace_only_pieces=True,
            split_digits=True,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,  # the model depends on this number
            minloglevel=2,
        )
    except (RuntimeError, OSError) as e:
        reason = str(e).rsplit("] ", 1)[-1]
        raise UserError(f"vocabulary bpe:{size}: SentencePiece cannot learn it from this text: {reason}") from e
    return model.getvalue()
