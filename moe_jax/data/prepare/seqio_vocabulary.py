"""The vocabulary of a seqio Task that gives token ids. Imports TensorFlow when one is read."""

import dataclasses
import functools
import hashlib
from typing import Any

import numpy as np

from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary
from moe_jax.data.vocabularies import ByteVocabulary
from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class TaskVocabulary:
    """The meaning of token ids that a Task made itself; a Vocabulary without `encode`."""

    size: int
    end_of_document: int
    file: tuple[str, bytes] | None
    lengths: tuple[int, ...]  # [size], bytes of the text that each id spells, in UTF-8; 0 for special tokens
    description: str
    unknown: int | None
    end_token: str = ""  # where the vocabulary says how it spells the id

    def bytes_of(self, tokens: np.ndarray) -> np.ndarray:
        """How many bytes of text each token spells, int64 of the tokens' shape. The Task alone knows its texts."""
        return self._lengths[tokens]

    @functools.cached_property
    def _lengths(self) -> np.ndarray:
        return np.array(self.lengths, np.int64)

    def describe(self) -> dict[str, Any]:
        """As Vocabulary."""
        content = {"sha256": hashlib.sha256(self.file[1]).hexdigest()} if self.file else {}
        return {"kind": "seqio", "vocabulary": self.description, **content}


def task_vocabulary(name: str, vocabulary: Any) -> TaskVocabulary:
    """The seqio.Vocabulary of the Task `name`. Raises UserError if it has no end-of-sentence token."""
    import seqio

    from moe_jax.data.prepare.seqio_tasks import HuggingFaceVocabulary

    if vocabulary.eos_id is None:
        raise UserError(f"{name}: its vocabulary has no end-of-sentence token to end documents with")
    file, end_token, unknown = None, "", vocabulary.unk_id
    if isinstance(vocabulary, seqio.ByteVocabulary):
        lengths, end_token = ByteVocabulary().spelt_bytes(), ByteVocabulary.end_token
    elif isinstance(vocabulary, seqio.SentencePieceVocabulary):
        ours = SentencePieceVocabulary(vocabulary.sp_model, name)
        lengths, file, end_token, unknown = ours.spelt_bytes(), ours.file, ours.end_token, ours.unknown
    elif isinstance(vocabulary, HuggingFaceVocabulary):
        ours = vocabulary.tokenizer
        lengths, file, end_token, unknown = ours.spelt_bytes(), ours.file, ours.end_token, ours.unknown
    else:
        special = {vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id}
        lengths = [0 if i in special else len(vocabulary.decode([i]).encode()) for i in range(vocabulary.vocab_size)]
    known = np.asarray(lengths, np.int64)[: vocabulary.vocab_size]
    lengths = np.pad(known, (0, vocabulary.vocab_size - len(known)))  # extra ids stand for no text
    # The repr of most vocabularies names their file, whose path differs from machine to machine.
    return TaskVocabulary(
        vocabulary.vocab_size, vocabulary.eos_id, file, tuple(lengths.tolist()), type(vocabulary).__name__, unknown,
        end_token,
    )  # fmt: skip
