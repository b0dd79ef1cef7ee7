"""Vocabularies: text <-> token ids, without TensorFlow or seqio.

Named as `--vocabulary` names them: `byte`, `bpe:SIZE` (a SentencePiece BPE that `prepare` trains on the source), or a
SentencePiece model file `PATH.model`, or a Hugging Face `tokenizer.json` (tokenizer_json.py).
"""

import functools
import hashlib
import io
import itertools
import re
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from etils import epath

from moe_jax.data.segments import segments
from moe_jax.errors import UserError

# SentencePiece's time grows faster than its input: 7 MB/s in segments of 2 kB, 2.4 MB/s in one of 4 MB. Cutting after
# lines changes 1 token in 50,000.
_SEGMENT_CHARACTERS = 2**11
# Words that are remembered: so many, of at most so many characters.
_WORDS, _WORD_CHARACTERS = 2**18, 32
# Spaces and what follows them. U+2581 is how pieces spell a space.
_WORD = re.compile("[ ▁]*[^ ▁]+|[ ▁]+")
# A line of the trainer; longer ones it would drop.
_TRAINING_SEGMENT = 2**12


class Vocabulary(Protocol):
    """What the meaning of token ids is. Instances go to other processes, so they pickle."""

    size: int
    end_of_document: int
    file: tuple[str, bytes] | None  # name and content of the file that the store keeps

    def byte_lengths(self) -> np.ndarray:
        """Bytes in UTF-8 that each id stands for, int64 [size]; 0 for special tokens."""

    def describe(self) -> dict[str, Any]:
        """What `store.json` says of it."""


class TextVocabulary(Vocabulary, Protocol):
    """A vocabulary that makes token ids."""

    def encode(self, text: str) -> np.ndarray:
        """Token ids of the text [n], without an end-of-document token."""

    def decode(self, tokens: np.ndarray) -> str:
        """Text of token ids [n], special tokens left out."""


class ByteVocabulary:
    """UTF-8 bytes, numbered as seqio.ByteVocabulary(extra_ids=0) does: 0 padding, 1 end, 2 unknown, byte + 3."""

    OFFSET = 3
    size = 256 + OFFSET
    end_of_document = 1
    file = None

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16) + np.uint16(self.OFFSET)

    def decode(self, tokens: np.ndarray) -> str:
        tokens = np.asarray(tokens)
        return (tokens[tokens >= self.OFFSET] - self.OFFSET).astype(np.uint8).tobytes().decode(errors="replace")

    def byte_lengths(self) -> np.ndarray:
        return (np.arange(self.size) >= self.OFFSET).astype(np.int64)

    def describe(self) -> dict[str, Any]:
        return {"kind": "byte"}


class SentencePieceVocabulary:
    """A SentencePiece model. Raises UserError if the bytes are not one, or if it has no end-of-sentence token."""

    def __init__(self, model: bytes, name: str):
        self._model = model
        self.name = name
        self.file = ("vocabulary.model", model)
        processor = self._processor
        self.size = processor.get_piece_size()
        self.end_of_document = processor.eos_id()
        if self.end_of_document < 0:
            raise UserError(f"{name}: this SentencePiece model has no end-of-sentence token to end documents with")

    @functools.cached_property
    def _processor(self) -> Any:
        import sentencepiece

        try:
            return sentencepiece.SentencePieceProcessor(model_proto=self._model)
        except RuntimeError as e:
            raise UserError(f"{self.name}: this is not a SentencePiece model") from e

    @functools.cached_property
    def _words(self) -> "_Words | None":
        """Ids of words met before; None where a text's ids are not those of its words, one after the other.

        They are where no piece goes on after a word's end and nothing is added or removed at a text's ends. Most words
        are common ones, so this is 3 times as fast as SentencePiece on whole texts.
        """
        pieces = [self._processor.id_to_piece(i) for i in range(self.size)]
        keeps_spaces = self._processor.normalize("  a  b  ") == "▁▁a▁▁b▁▁"
        return _Words(self._processor) if keeps_spaces and not any(map(re.compile("[^▁]▁").search, pieces)) else None

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_processor", "_words")}

    def encode(self, text: str) -> np.ndarray:
        if self._words is not None:
            parts = map(self._words.__getitem__, _WORD.findall(text))
        else:
            parts = map(self._processor.encode, segments(text, _SEGMENT_CHARACTERS))
        return np.fromiter(itertools.chain.from_iterable(parts), np.int32)

    def decode(self, tokens: np.ndarray) -> str:
        return self._processor.decode(np.asarray(tokens).tolist())

    def byte_lengths(self) -> np.ndarray:
        return np.array([self._byte_length(i) for i in range(self.size)], np.int64)

    def _byte_length(self, i: int) -> int:
        p = self._processor
        if p.is_control(i) or p.is_unknown(i) or p.is_unused(i):
            return 0
        return 1 if p.is_byte(i) else len(p.id_to_piece(i).replace("▁", " ").encode())

    def describe(self) -> dict[str, Any]:
        return {"kind": "sentencepiece", "sha256": hashlib.sha256(self._model).hexdigest()}


class _Words(dict):
    """word -> its ids, asked of SentencePiece the first time."""

    def __init__(self, processor: Any):
        super().__init__()
        self._processor = processor

    def __missing__(self, word: str) -> list[int]:
        ids = [i for s in segments(word, _SEGMENT_CHARACTERS) for i in self._processor.encode(s)]
        if len(word) <= _WORD_CHARACTERS and len(self) < _WORDS:
            self[word] = ids
        return ids


def train_bpe(size: int, texts: Iterable[str]) -> bytes:
    """A SentencePiece BPE model of `size` pieces that loses nothing of a text but U+2581, which it reads as a space.

    Whitespace is kept and unknown characters become bytes. The same texts give the same model.
    Raises UserError if the texts are too few for so many pieces.
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
            num_threads=1,  # another number gives another model
            minloglevel=2,
        )
    except (RuntimeError, OSError) as e:
        reason = str(e).rsplit("] ", 1)[-1]
        raise UserError(f"vocabulary bpe:{size}: SentencePiece cannot learn it from this text: {reason}") from e
    return model.getvalue()


def bpe_size(spec: str) -> int | None:
    """SIZE of `bpe:SIZE`, None for another kind. Raises UserError if SIZE is no number above the 259 it needs."""
    if not spec.startswith("bpe:"):
        return None
    size = spec.removeprefix("bpe:")
    if not re.fullmatch(r"[0-9]{1,7}", size) or int(size) < 260:
        raise UserError(f"vocabulary {spec}: write it as bpe:SIZE, with SIZE of at least 260 (256 are bytes)")
    return int(size)


def load(spec: str) -> TextVocabulary:
    """The vocabulary that `--vocabulary` names, other than `bpe:SIZE`, which is trained on the source."""
    if spec == "byte":
        return ByteVocabulary()
    try:
        if spec.endswith(".model"):
            return SentencePieceVocabulary(epath.Path(spec).read_bytes(), spec)
        if spec.endswith(".json"):
            from moe_jax.data.tokenizer_json import TokenizerJson

            return TokenizerJson(epath.Path(spec).read_bytes(), spec)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as e:
        raise UserError(f"vocabulary {spec}: this file cannot be read ({e.strerror})") from e
    raise UserError(f"vocabulary {spec}: there are byte, bpe:SIZE, PATH.model, a tokenizer.json, and task")
