"""The vocabulary of a finished store, from its folder: what turns prompts into token ids, and ids into text."""

import hashlib

from etils import epath

from moe_jax import files
from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary
from moe_jax.data.store import StoreInfo
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary, TextVocabulary
from moe_jax.errors import UserError


def read_vocabulary(path: str, info: StoreInfo) -> TextVocabulary:
    """The vocabulary of the store at `path`, whose store.json is `info`.

    Raises UserError where its file is missing or another, or where only a seqio Task knows what the ids mean."""
    kind, folder = info.vocabulary.get("kind"), epath.Path(path)
    if kind == "byte" or (kind == "seqio" and info.vocabulary.get("vocabulary") == "ByteVocabulary"):
        return ByteVocabulary()
    for name in ("vocabulary.model", "tokenizer.json"):
        if (content := _content(folder / name, info)) is None:
            continue
        if name == "vocabulary.model":
            return SentencePieceVocabulary(content, str(folder / name), info.end_token or None)
        return TokenizerJson(content, str(folder / name), (info.end_of_document, "store.json"))
    if kind == "seqio":
        raise UserError(
            f"{path}: its token ids were made by a seqio Task whose vocabulary ({info.vocabulary.get('vocabulary')}) "
            "has no file in the store, so they cannot be shown as text"
        )
    raise UserError(f"{path}: the file of its vocabulary is missing; remove the folder and prepare it again")


def _content(file: epath.Path, info: StoreInfo) -> bytes | None:
    """The bytes of a vocabulary's file; None where there is none. Raises UserError if they are others than the
    store's."""
    try:
        content = files.read_file(file)
    except FileNotFoundError:
        return None
    if hashlib.sha256(content).hexdigest() != info.vocabulary.get("sha256"):
        raise UserError(f"{file}: is damaged (its SHA-256 is not the one in store.json); prepare the store again")
    return content
