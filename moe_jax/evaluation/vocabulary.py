"""The vocabulary that a run was trained with: from its store, or from a file that is named instead."""

from etils import epath

from moe_jax.data import store
from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary, TextVocabulary
from moe_jax.errors import UserError
from moe_jax.sweep.run_record import RunRecord

_FILES = {"sentencepiece": "vocabulary.model", "tokenizer.json": "tokenizer.json"}  # by kind, in the store's folder


def of_run(run: RunRecord, path: str | None = None) -> TextVocabulary:
    """The vocabulary of the run's token ids; `path` is its file, where the store is not here.

    Raises UserError where the run has ids of a seqio Task, the file is not there, or it is another vocabulary's."""
    kind = run.store.vocabulary.get("kind")
    if kind == "byte":
        if path:
            raise UserError(f"--vocabulary={path}: the run was trained on bytes, which need no file; leave it out")
        vocabulary = ByteVocabulary()
    elif kind not in _FILES:
        raise UserError(
            f"{run.name}: was trained on token ids of the kind {kind!r:.40}, which no text can be turned into"
        )
    else:
        file = epath.Path(path) if path else epath.Path(run.store.path) / _FILES[kind]
        try:
            content = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as e:
            raise UserError(
                f"{file}: there is no such file, and the run's text becomes tokens by it; name a copy with --vocabulary"
            ) from e
        vocabulary = _read(kind, content, str(file), run)
        if vocabulary.describe() != run.store.vocabulary:
            raise UserError(f"{file}: is another vocabulary than the run was trained with, so its ids mean other texts")
    if vocabulary.size > run.counts.vocab_size:
        raise UserError(
            f"{run.name}: its vocabulary has {vocabulary.size} ids, which do not fit its model of {run.counts.vocab_size}"
        )
    return vocabulary


def _read(kind: str, content: bytes, name: str, run: RunRecord) -> TextVocabulary:
    if kind == "tokenizer.json":
        return TokenizerJson(content, name, (run.store.end_of_document, store.INFO_NAME))
    return SentencePieceVocabulary(content, name, _end_piece(content, run.store.end_of_document))


def _end_piece(content: bytes, end_of_document: int) -> str | None:
    """How the model spells the id; None where it cannot be one, which SentencePieceVocabulary refuses."""
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=content).id_to_piece(end_of_document)
    except (RuntimeError, IndexError):
        return None
