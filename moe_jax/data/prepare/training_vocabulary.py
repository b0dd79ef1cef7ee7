"""The vocabulary that a source is tokenised with: given by name, the source's own, or a BPE trained on the source."""

import collections
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.data import vocabularies
from moe_jax.data.prepare.sources import Source, reasons
from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary, train_bpe
from moe_jax.data.vocabularies import Vocabulary
from moe_jax.errors import UserError

# The name of the vocabulary of a source that gives token ids.
TASK_VOCABULARY = "task"
# A BPE is trained on at most this much text, from at most this many shards, evenly over the source.
_TRAINING_CHARACTERS = 4_000_000
_TRAINING_SHARDS = 16


def given(source: Source, spec: str, end_of_document: str | None = None) -> Vocabulary | None:
    """The vocabulary that `spec` names, or the source's own; None for `bpe:SIZE`, which is to be trained.

    `end_of_document` names the token that ends a document (None: the vocabulary's own). Raises UserError if `spec`
    names none, does not fit the source, or has no such token."""
    if end_of_document is not None:
        vocabularies.check_has_file(spec, end_of_document)
    if source.vocabulary is None and vocabularies.bpe_size(spec):
        return None
    if (spec == TASK_VOCABULARY) != (source.vocabulary is not None):
        if source.vocabulary is None:
            raise UserError(f"vocabulary {spec}: {source.name} gives texts; name a vocabulary to make tokens with")
        raise UserError(
            f"vocabulary {spec}: {source.name} gives token ids of its own vocabulary; use {TASK_VOCABULARY}"
        )
    return source.vocabulary or vocabularies.load(spec, end_of_document)


def check_size(spec: str, size: int, model_vocab_size: int | None) -> None:
    """Raises UserError if a vocabulary has more token ids than the model has embeddings (None: as many as needed)."""
    if model_vocab_size is not None and size > model_vocab_size:
        raise UserError(
            f"config.model.vocab_size = {model_vocab_size}: vocabulary {spec} has {size} token ids, and the model must "
            f"have at least as many; give --config.model.vocab_size={size} (or None: as many as the store), or a "
            "smaller vocabulary"
        )


def trained(source: Source, size: int, path: epath.Path) -> Vocabulary:
    """The BPE of `size` pieces at `path`; trained first if it is missing, damaged, or of another content of the source.

    Raises UserError if the source has too little text, OSError."""
    seal = path.with_suffix(".json")
    trained_on = [source.fingerprint(shard) for shard in _training_shards(source)]

    def fields(model: bytes) -> dict[str, Any]:
        return {"size": size, "trained_on": trained_on, "sha256": hashlib.sha256(model).hexdigest()}

    try:
        model = path.read_bytes()
        finished = files.read_sealed(seal) == fields(model)
    except (FileNotFoundError, files.DamagedFile):
        finished = False
    if not finished:
        skipped: collections.Counter[str] = collections.Counter()
        try:
            model = train_bpe(size, _training_texts(source, lambda reason: skipped.update([reason])))
        except UserError as e:
            if not skipped:
                raise
            raise UserError(f"{e}; skipped before: {reasons(skipped)}") from e
        files.write_atomic(path, model)
        files.write_sealed(seal, fields(model))
    return SentencePieceVocabulary(model, str(path))


def _training_shards(source: Source) -> list[int]:
    n = min(source.n_shards, _TRAINING_SHARDS)
    return [source.n_shards * i // n for i in range(n)]


def _training_texts(source: Source, skip: Callable[[str], None]) -> Iterator[str]:
    """Training documents from the beginnings of the training shards."""
    shards = _training_shards(source)
    for shard in shards:
        left = _TRAINING_CHARACTERS // len(shards)
        for document in source.documents(shard, skip):
            if document.split == "train":
                yield document.text[:left]
                left -= len(document.text)
            if left <= 0:
                break
