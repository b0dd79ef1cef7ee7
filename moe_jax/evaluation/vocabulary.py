"""The vocabulary that a run was trained with: from its store, or from a file that is named instead."""

import hashlib

from etils import epath

from moe_jax.data import store
from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary, TextVocabulary
from moe_jax.errors import UserError
from moe_jax.sweep.run_record import RunRecord

# Kinds of vocabularies in store.json, and the classes of seqio and ours that Tasks with ids have; their files' names.
_BYTES = ("byte", "ByteVocabulary")
_FILES = {
    "sentencepiece": "vocabulary.model",
    "SentencePieceVocabulary": "vocabulary.model",
    "tokenizer.json": "tokenizer.json",
    "HuggingFaceVocabulary": "tokenizer.json",
}


def of_run(run: RunRecord, path: str | None = None) -> TextVocabulary:
    """The vocabulary of the run's token ids; `path` is its file, where the store is not here.

    Raises UserError where the file is not there or is another vocabulary's, or where there is no such file."""
    described = run.store.vocabulary
    kind = described.get("vocabulary" if described.get("kind") == "seqio" else "kind")
    if kind in _BYTES:
        if path:
            raise UserError(f"--vocabulary={path}: the run was trained on bytes, which need no file; leave it out")
        return ByteVocabulary()
    if kind not in _FILES:
        raise UserError(f"{run.name}: has the vocabulary {kind!r:.40}, which turns no text into ids here")
    file = epath.Path(path) if path else epath.Path(run.store.path) / _FILES[kind]
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
        raise UserError(f"{file}: there is no such file, the run's vocabulary; name a copy with --vocabulary") from e
    if hashlib.sha256(content).hexdigest() != described.get("sha256"):
        raise UserError(f"{file}: is another vocabulary than the run was trained with, so its ids mean other texts")
    end = run.store.end_of_document
    if _FILES[kind] == "tokenizer.json":
        vocabulary = TokenizerJson(content, str(file), (end, store.INFO_NAME))
    else:
        vocabulary = SentencePieceVocabulary(content, str(file), _piece(content, end))
    if vocabulary.size > run.counts.vocab_size:
        raise UserError(f"{file}: has {vocabulary.size} ids, which do not fit the model's {run.counts.vocab_size}")
    return vocabulary


def _piece(content: bytes, i: int) -> str:
    """How a SentencePiece model spells an id."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=content).id_to_piece(i)
