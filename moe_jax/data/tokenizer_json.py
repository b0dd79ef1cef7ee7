"""A Hugging Face `tokenizer.json` as a vocabulary, without transformers, TensorFlow or a network."""

import functools
import hashlib
import json
from typing import Any

import numpy as np

from moe_jax.data.segments import segments
from moe_jax.errors import UserError

# What ends a document, by the names that published tokenizers give it; the first one that is there counts.
_ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<end_of_text>", "[SEP]")
_SEGMENT_CHARACTERS = 2**20


class TokenizerJson:
    """Raises UserError if the bytes are no tokenizer, or if none of its special tokens ends a document.

    Special tokens spelt out in a text are text: a web page about GPT-2 does not end where it says <|endoftext|>.
    """

    def __init__(self, content: bytes, name: str):
        self._content = content
        self.name = name
        self.file = ("tokenizer.json", content)
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        self.size = max(ids.values()) + 1  # ids may have gaps
        end = next((ids[e] for e in _ENDS if e in ids), None)
        if end is None:
            raise UserError(
                f"vocabulary {name}: has no token that ends a document; one of {', '.join(_ENDS)} must be there"
            )
        self.end_of_document = end

    @functools.cached_property
    def _tokenizer(self) -> Any:
        try:
            import tokenizers
        except ImportError as e:
            raise UserError("reading a tokenizer.json needs tokenizers: pip install tokenizers") from e
        try:
            tokenizer = tokenizers.Tokenizer.from_str(self._content.decode())
        except Exception as e:  # the library raises Exception itself
            raise UserError(f"vocabulary {self.name}: this is not a tokenizer.json: {e}") from e
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        return tokenizer

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_tokenizer"}

    def encode(self, text: str) -> np.ndarray:
        parts = (self._tokenizer.encode(s, add_special_tokens=False).ids for s in segments(text, _SEGMENT_CHARACTERS))
        return np.concatenate([np.zeros(0, np.int32)] + [np.array(ids, np.int32) for ids in parts])

    def decode(self, tokens: np.ndarray) -> str:
        return self._tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)

    def byte_lengths(self) -> np.ndarray:
        lengths = np.zeros(self.size, np.int64)
        spelt_in_bytes = any(_has_type(self._fields[part], "ByteLevel") for part in ("decoder", "pre_tokenizer"))
        for token, i in self._tokenizer.get_vocab(with_added_tokens=False).items():
            # ByteLevel spells each byte as a character. Others spell text, U+2581 for a space, a lone byte as <0x0A>.
            if spelt_in_bytes:
                lengths[i] = len(token)
            elif len(token) == 6 and token.startswith("<0x"):
                lengths[i] = 1
            else:
                lengths[i] = len(token.replace("▁", " ").encode())
        for i, added in self._tokenizer.get_added_tokens_decoder().items():
            lengths[i] = 0 if added.special else len(added.content.encode())
        return lengths

    @functools.cached_property
    def _fields(self) -> dict[str, Any]:
        return json.loads(self._content)

    def describe(self) -> dict[str, Any]:
        return {"kind": "tokenizer.json", "sha256": hashlib.sha256(self._content).hexdigest()}


def _has_type(part: Any, kind: str) -> bool:
    """Whether a part of a tokenizer is of this kind or has one inside (Sequence)."""
    if isinstance(part, dict):
        return part.get("type") == kind or any(_has_type(p, kind) for p in part.values())
    return isinstance(part, list) and any(_has_type(p, kind) for p in part)
