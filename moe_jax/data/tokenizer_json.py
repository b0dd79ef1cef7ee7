"""A Hugging Face `tokenizer.json` as a vocabulary, without transformers, TensorFlow or a network."""

import functools
import hashlib
import json
from typing import Any

import numpy as np
from etils import epath

from moe_jax import files
from moe_jax.data import source_bytes
from moe_jax.errors import UserError

# The names that published tokenizers give to the end of a document, where nothing else names it; the first one that is
# a special token is taken. A special token is never made from text; an ordinary one is (Gemma's </s> is an HTML tag).
_ENDS = (
    "<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "[EOS]", "<end_of_text>", "[SEP]",
    "<｜end▁of▁sentence｜>",
)  # fmt: skip
# Where the files beside a tokenizer.json name its end: by the token, or by its id.
_CONFIGS = (
    ("tokenizer_config.json", "eos_token"),
    ("generation_config.json", "eos_token_id"),
    ("config.json", "eos_token_id"),
)
_MAX_SIZE = 2**24  # tables of all ids are kept; the largest published vocabularies have 2^18


class TokenizerJson:
    """A tokenizer.json. Raises UserError if the bytes are not one, or if no token in it ends a document.

    `name` says in errors where it came from, `end` which special token ends a document (by its name or id) and who
    says so: _ENDS if None. A special token spelt out in a text is text: a web page about GPT-2 does
    not end where it says <|endoftext|>.
    """

    def __init__(self, content: bytes, name: str, end: tuple[str | int, str] | None = None):
        self._content = content
        self.name = name
        self.file = ("tokenizer.json", content)
        ids = self._tokenizer.get_vocab(with_added_tokens=True)
        if not ids:
            raise UserError(f"vocabulary {name}: it has no tokens; name a tokenizer.json that has some")
        last = max(ids, key=ids.__getitem__)
        self.size = ids[last] + 1  # ids may have gaps
        if self.size > _MAX_SIZE:
            raise UserError(
                f"vocabulary {name}: its token {last!r} has the id {ids[last]}; ids must be below {_MAX_SIZE}, so "
                "correct the id in that file"
            )
        self.end_token, self.end_of_document = self._end(end)
        model = self._fields["model"]
        self.unknown = model.get("unk_id", ids.get(model.get("unk_token")))

    @classmethod
    def read(cls, path: str, end_of_document: str | None = None) -> "TokenizerJson":
        """The file at `path`; its end of document is the given token, or the one that the configs beside it name.

        Raises UserError as the class does, OSError."""
        content = epath.Path(path).read_bytes()
        if end_of_document is not None:
            return cls(content, path, (end_of_document, "--end_of_document"))
        return cls(content, path, _configured_end(epath.Path(path).parent))

    def _end(self, named: tuple[str | int, str] | None) -> tuple[str, int]:
        """The special token that ends a document, and its id. Raises UserError if there is none."""
        special = {a.content: i for i, a in self._tokenizer.get_added_tokens_decoder().items() if a.special}
        if named is None:
            found = next(((token, special[token]) for token in _ENDS if token in special), None)
            problem = f"it has no special token that ends a document by its name ({', '.join(_ENDS)})"
        else:
            found = next(((token, i) for token, i in special.items() if named[0] in (token, i)), None)
            problem = f"{named[1]} names {named[0]!r} as the end of a document, which is no special token of it"
        if found is None:
            has = f"one of {', '.join(special)}" if special else "another vocabulary"
            raise UserError(f"vocabulary {self.name}: {problem}; name {has} with prepare --end_of_document=TOKEN")
        return found

    @functools.cached_property
    def _tokenizer(self) -> Any:
        try:
            import tokenizers
        except ImportError as e:
            raise UserError("reading a tokenizer.json needs tokenizers: pip install tokenizers") from e
        try:
            tokenizer = tokenizers.Tokenizer.from_str(self._content.decode())
        except Exception as e:  # the library raises plain Exception
            raise UserError(f"vocabulary {self.name}: this is not a tokenizer.json: {e}") from e
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True
        return tokenizer

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_tokenizer", "_fields")}

    def encode(self, text: str) -> np.ndarray:
        """As TextVocabulary: int32 [n]."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, np.int32)

    def encode_with_bytes(self, text: str) -> tuple[np.ndarray, np.ndarray]:
        """As TextVocabulary: int32 [n], int64 [n + 1]."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        byte_of_character = source_bytes.byte_of_character(text)
        end_n = byte_of_character[np.array(encoded.offsets, np.int64).reshape(-1, 2)[:, 1]]
        return np.array(encoded.ids, np.int32), source_bytes.of_tokens(end_n, byte_of_character[-1])

    def decode(self, tokens: np.ndarray) -> str:
        """As TextVocabulary."""
        return self._tokenizer.decode(np.asarray(tokens).tolist(), skip_special_tokens=True)

    def spell(self, token: int) -> str:
        """As TextVocabulary."""
        piece = self._tokenizer.id_to_token(int(token))
        if piece is None:  # ids may have gaps
            return f"<{token}>"
        if not any(_has_type(self._fields[part], "ByteLevel") for part in ("decoder", "pre_tokenizer")):
            return piece.replace("▁", " ")
        text = self._tokenizer.decode([int(token)], skip_special_tokens=False)
        return piece if "\ufffd" in text else text

    def spelt_bytes(self) -> np.ndarray:
        """How many bytes of text each id spells, int64 [size]; 0 for special tokens."""
        lengths = np.zeros(self.size, np.int64)
        spelt_in_bytes = any(_has_type(self._fields[part], "ByteLevel") for part in ("decoder", "pre_tokenizer"))
        for token, i in self._tokenizer.get_vocab(with_added_tokens=False).items():
            # ByteLevel spells each byte as one character; others spell text, a space as U+2581, one byte as <0x0A>.
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
        """As Vocabulary."""
        return {"kind": "tokenizer.json", "sha256": hashlib.sha256(self._content).hexdigest()}


def _configured_end(folder: epath.Path) -> tuple[str | int, str] | None:
    """The end of a document that a config in the folder names, and the config's path. Raises UserError if damaged."""
    for name, field in _CONFIGS:
        try:
            config = files.read_json(folder / name)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except files.DamagedFile as e:
            raise UserError(f"{folder / name}: this is not a whole JSON object; correct or remove it") from e
        end = config.get(field)
        if isinstance(end, dict):  # a token with its properties
            end = end.get("content")
        if isinstance(end, list):  # the ends of a text and of a chat's turn
            end = end[0] if end else None
        if isinstance(end, str | int):
            return end, str(folder / name)
    return None


def _has_type(part: Any, kind: str) -> bool:
    """Whether a part of a tokenizer is of this kind, or contains one (Sequence)."""
    if isinstance(part, dict):
        return part.get("type") == kind or any(_has_type(p, kind) for p in part.values())
    return isinstance(part, list) and any(_has_type(p, kind) for p in part)
