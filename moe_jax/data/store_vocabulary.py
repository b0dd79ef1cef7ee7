"""The vocabulary of a finished store, from its folder: what turns texts into token ids, and ids into text."""

import hashlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary
from moe_jax.data.store import INFO_NAME
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary, TextVocabulary
from moe_jax.errors import UserError


def read_vocabulary(path: str, described: Mapping[str, Any], end_of_document: int) -> TextVocabulary:
    """The vocabulary of the store at `path`, as store.json or a run's record describes it.

    Raises UserError where its file is missing or another, or where only a seqio Task knows what the ids mean."""
    kind, folder = described.get("kind"), epath.Path(path)
    if kind == "byte" or (kind == "seqio" and described.get("vocabulary") == "ByteVocabulary"):
        return ByteVocabulary()
    for name in ("vocabulary.model", "tokenizer.json"):
        if (content := _content(folder / name, described)) is None:
            continue
        if name == "vocabulary.model":
            return SentencePieceVocabulary(content, str(folder / name), _piece(content, end_of_document))
        return TokenizerJson(content, str(folder / name), (end_of_document, INFO_NAME))
    if kind == "seqio":
        raise UserError(
            f"{path}: its token ids were made by a seqio Task whose vocabulary ({described.get('vocabulary')}) has no "
            "file in the store, so they cannot be shown as text"
        )
    raise UserError(f"{path}: the file of its vocabulary is missing; name the run's token store with --store")


def _content(file: epath.Path, described: Mapping[str, Any]) -> bytes | None:
    """The bytes of a vocabulary's file; None where there is none. Raises UserError if they are others than the
    store's."""
    try:
        content = files.read_file(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if hashlib.sha256(content).hexdigest() != described.get("sha256"):
        raise UserError(f"{file}: is damaged or another vocabulary (its SHA-256 is not the store's); name the store")
    return content


def _piece(content: bytes, i: int) -> str:
    """How a SentencePiece model spells an id."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=content).id_to_piece(i)
