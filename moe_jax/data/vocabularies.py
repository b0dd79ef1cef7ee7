"""Vocabularies, text <-> token ids, without TensorFlow or seqio; named as the flag `--vocabulary` names them.

byte         UTF-8 bytes
bpe:SIZE     a SentencePiece BPE that `prepare` trains on its source (sentencepiece_bpe.py)
PATH.model   a SentencePiece model
PATH.json    a Hugging Face tokenizer.json (tokenizer_json.py)
"""

import re
from typing import Any, Protocol

import numpy as np
from etils import epath

from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.errors import UserError


class Vocabulary(Protocol):
    """The meaning of token ids. Instances go to other processes, so they can be pickled."""

    size: int  # token ids are in [0, size)
    end_of_document: int
    end_token: str  # how the vocabulary spells that id
    unknown: int | None  # the id of text that the vocabulary has no other token for; None: there is no such id
    file: tuple[str, bytes] | None  # name and content of the file that the store keeps

    def describe(self) -> dict[str, Any]:
        """The entry in `store.json`; part of the store's digest."""


class TextVocabulary(Vocabulary, Protocol):
    """A vocabulary that turns texts into token ids."""

    def encode(self, text: str) -> np.ndarray:
        """Token ids of the text, integers [n], without an end-of-document token."""

    def encode_with_bytes(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """The same token ids [n], and how many bytes of the text each of them and the end of the document stands for,
        int64 [n + 1], as source_bytes.py counts them."""

    def spelt_bytes(self) -> np.ndarray:
        """How many bytes of text each id spells, int64 [size]; 0 for special tokens."""

    def decode(self, tokens: np.ndarray) -> str:
        """The text of token ids [n], without special tokens."""

    def spell(self, token: int) -> str:
        """How one id is written in a table: its text, <0xE2> for a byte that is no character, a special token's
        name."""


class ByteVocabulary:
    """UTF-8 bytes, numbered as seqio.ByteVocabulary(extra_ids=0) does: 0 padding, 1 end, 2 unknown, byte + 3."""

    OFFSET = 3
    size = 256 + OFFSET
    end_of_document = 1
    end_token = "</s>"  # noqa: S105 no password
    unknown = None
    file = None

    def encode(self, text: str) -> np.ndarray:
        """As TextVocabulary: uint16 [n]."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16) + np.uint16(self.OFFSET)

    def encode_with_bytes(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """As TextVocabulary: uint16 [n], int64 [n + 1]."""
        tokens = self.encode(text)
        return tokens, np.append(np.ones(len(tokens), np.int64), 0)

    def spelt_bytes(self) -> np.ndarray:
        """As TextVocabulary."""
        return (np.arange(self.size) >= self.OFFSET).astype(np.int64)

    def decode(self, tokens: np.ndarray) -> str:
        """As TextVocabulary; bytes that are not UTF-8 become U+FFFD."""
        tokens = np.asarray(tokens)
        return (tokens[tokens >= self.OFFSET] - self.OFFSET).astype(np.uint8).tobytes().decode(errors="replace")

    def spell(self, token: int) -> str:
        """As TextVocabulary."""
        if token < self.OFFSET:
            return ("<pad>", self.end_token, "<unk>")[token]
        byte = token - self.OFFSET
        return chr(byte) if byte < 128 else f"<0x{byte:02X}>"

    def describe(self) -> dict[str, Any]:
        """As Vocabulary."""
        return {"kind": "byte"}


def bpe_size(spec: str) -> int | None:
    """SIZE of `bpe:SIZE`; None for another kind. Raises UserError if SIZE is not a number of at least 260."""
    if not spec.startswith("bpe:"):
        return None
    size = spec.removeprefix("bpe:")
    if not re.fullmatch(r"[0-9]{1,7}", size) or int(size) < 260:
        raise UserError(f"vocabulary {spec}: write it as bpe:SIZE, with SIZE of at least 260 (256 are bytes)")
    return int(size)


def check_has_file(spec: str, end_of_document: str) -> None:
    """Raises UserError if the vocabulary's end of document cannot be named: it is then a part of its definition."""
    if not spec.endswith((".model", ".json")):
        raise UserError(
            f"--end_of_document={end_of_document}: it names a token of PATH.model or PATH.json, and the vocabulary is "
            f"{spec}; leave it out"
        )


def load(spec: str, end_of_document: str | None = None) -> TextVocabulary:
    """The vocabulary of a name other than `bpe:SIZE`, which `prepare` trains; `end_of_document` names the token that
    ends a document (None: the vocabulary's own). Raises UserError if it cannot be read, or has no such token."""
    if end_of_document is not None:
        check_has_file(spec, end_of_document)
    if spec == "byte":
        return ByteVocabulary()
    try:
        if spec.endswith(".model"):
            return SentencePieceVocabulary(epath.Path(spec).read_bytes(), spec, end_of_document)
        if spec.endswith(".json"):
            return TokenizerJson.read(spec, end_of_document)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as e:
        raise UserError(f"vocabulary {spec}: this file cannot be read ({e.strerror})") from e
    raise UserError(
        f"vocabulary {spec}: there is no such vocabulary; name byte, bpe:SIZE, PATH.model, PATH.json or task"
    )
