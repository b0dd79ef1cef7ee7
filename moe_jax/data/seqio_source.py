"""Any registered seqio Task or Mixture as a source. TensorFlow is imported here, when `prepare` is asked for one.

A Mixture keeps its rates: a shard of the source is the same shard of every Task, sampled at the rates until the first
Task's is used up, each document at most once. Where there is a "validation" split it is the held-out part; otherwise
one document in a hundred is.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from moe_jax.data.sources import HELDOUT_FRACTION, Document, keyed_fraction
from moe_jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary
from moe_jax.errors import UserError

_FEATURE = "targets"


@dataclasses.dataclass(frozen=True)
class SeqioSource:
    """Documents are the "targets" of the Task's or Mixture's examples: texts, or token ids of its own vocabulary."""

    name: str
    seed: int
    module_import: tuple[str, ...] = ()  # modules that register the user's own names
    tfds_data_dir: str | None = None

    @functools.cached_property
    def _provider(self) -> Any:
        """The Task or Mixture."""
        return _load(self.name, self.module_import, self.tfds_data_dir)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_provider"}

    @functools.cached_property
    def _shards(self) -> list[tuple[str, int, int]]:
        """(seqio's split, index, number of its shards) for each shard of the source."""
        splits = [s for s in ("train", "validation") if s in self._provider.splits]
        counts = {s: min(len(t.source.list_shards(s)) for t in self._tasks if s in t.splits) for s in splits}
        return [(split, i, n) for split, n in counts.items() for i in range(n)]

    @property
    def _tasks(self) -> list[Any]:
        return list(getattr(self._provider, "tasks", [self._provider]))

    @property
    def n_shards(self) -> int:
        try:
            return len(self._shards)
        except UserError:
            raise
        except Exception as e:  # a data source may raise anything
            raise self._unreadable(e) from e

    @functools.cached_property
    def vocabulary(self) -> "TaskVocabulary | None":
        """The vocabulary that the documents' ids are of, None where documents are texts."""
        features = self._provider.output_features
        if _FEATURE not in features:
            raise UserError(f"{self.name}: has the features {', '.join(features)}, but training reads {_FEATURE!r}")
        return None if features[_FEATURE].dtype.name == "string" else _own(self.name, features[_FEATURE].vocabulary)

    def fingerprint(self, shard: int) -> str:
        split, index, n = self._shards[shard]
        made_of = (self.describe(), self.seed, split, index, n, self._files[split])
        return hashlib.sha256(repr(made_of).encode()).hexdigest()

    @functools.cached_property
    def _files(self) -> dict[str, list[Any]]:
        """What each split's files are called, and how large and how old they are."""
        splits = {split for split, _, _ in self._shards}
        return {
            s: [_looks(str(f)) for t in self._tasks if s in t.splits for f in t.source.list_shards(s)] for s in splits
        }

    @functools.cached_property
    def held_out_by_chance(self) -> bool:
        return all(split != "validation" for split, _, _ in self._shards)

    def documents(self, shard: int, skip: Callable[[str], None]) -> Iterator[Document]:
        split, index, n = self._shards[shard]
        for i, example in enumerate(self._examples(split, index, n)):
            if not self.held_out_by_chance:
                to = "train" if split == "train" else "heldout"
            else:
                to = "heldout" if keyed_fraction(f"{index}/{n}:{i}", self.seed) < HELDOUT_FRACTION else "train"
            yield from self._document(to, example[_FEATURE], skip)

    def _examples(self, split: str, index: int, n: int) -> Iterator[dict[str, Any]]:
        import seqio

        try:
            yield from self._provider.get_dataset(
                sequence_length=None,
                split=split,
                shuffle=False,
                seed=self.seed * 1_000_003 + index,
                shard_info=seqio.ShardInfo(index, n),
                num_epochs=1,
                trim_output_features=False,
                try_in_mem_cache=False,
            ).as_numpy_iterator()
        except UserError:
            raise
        except Exception as e:
            raise self._unreadable(e) from e

    def _document(self, to: str, target: Any, skip: Callable[[str], None]) -> Iterator[Document]:
        if self.vocabulary is None:
            try:
                text = target.decode()
            except UnicodeDecodeError:
                skip("not UTF-8")
                return
            yield Document(to, text)
        else:
            # Tasks may end documents themselves (seqio.preprocessors.append_eos); `prepare` does it for all.
            ends = target.size and target[-1] == self.vocabulary.end_of_document
            yield Document(to, None, np.asarray(target[:-1] if ends else target))

    def describe(self) -> dict[str, Any]:
        rates = {t.name: float(self._provider.get_rate(t)) if t is not self._provider else 1.0 for t in self._tasks}
        return {"name": self.name, "seqio_rates": rates}

    def _unreadable(self, e: Exception) -> UserError:
        return UserError(f"the seqio mixture {self.name} cannot be read: {type(e).__name__}: {str(e).splitlines()[0]}")


@dataclasses.dataclass(frozen=True)
class TaskVocabulary:
    """What `prepare` needs to know of the vocabulary of token ids that it did not make."""

    size: int
    end_of_document: int
    file: tuple[str, bytes] | None
    lengths: tuple[int, ...]
    description: str

    def byte_lengths(self) -> np.ndarray:
        return np.array(self.lengths, np.int64)

    def describe(self) -> dict[str, Any]:
        content = {"sha256": hashlib.sha256(self.file[1]).hexdigest()} if self.file else {}
        return {"kind": "seqio", "vocabulary": self.description, **content}


def _own(name: str, vocabulary: Any) -> TaskVocabulary:
    import seqio

    from moe_jax.data.seqio_tasks import HuggingFaceVocabulary

    if vocabulary.eos_id is None:
        raise UserError(f"{name}: its vocabulary has no end-of-sentence token to end documents with")
    file = None
    if isinstance(vocabulary, seqio.ByteVocabulary):
        lengths = ByteVocabulary().byte_lengths()
    elif isinstance(vocabulary, seqio.SentencePieceVocabulary):
        ours = SentencePieceVocabulary(vocabulary.sp_model, name)
        lengths, file = ours.byte_lengths(), ours.file
    elif isinstance(vocabulary, HuggingFaceVocabulary):
        lengths, file = vocabulary.tokenizer.byte_lengths(), vocabulary.tokenizer.file
    else:
        special = {vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id}
        lengths = [0 if i in special else len(vocabulary.decode([i]).encode()) for i in range(vocabulary.vocab_size)]
    known = np.asarray(lengths, np.int64)[: vocabulary.vocab_size]
    lengths = np.pad(known, (0, vocabulary.vocab_size - len(known)))  # extra ids stand for no text
    # repr of most vocabularies names their file, which is another on every machine.
    return TaskVocabulary(
        vocabulary.vocab_size, vocabulary.eos_id, file, tuple(lengths.tolist()), type(vocabulary).__name__
    )


def _looks(file: str) -> tuple[Any, ...]:
    try:
        stat = epath.Path(file).stat()
    except Exception:  # no file, but a name of the Task's own; or one that TensorFlow alone can reach
        return (file,)
    return (file,) if stat.is_directory else (file, stat.length, stat.mtime)


@functools.cache
def _load(name: str, modules: tuple[str, ...], tfds_data_dir: str | None) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import seqio
        import tensorflow as tf
    except ImportError as e:
        raise UserError(f"data.mixture={name} is for seqio, which cannot be imported: {e}") from e
    tf.config.set_visible_devices([], "GPU")  # tokenising needs none, and TensorFlow would take all of it
    if tfds_data_dir:
        seqio.set_tfds_data_dir_override(tfds_data_dir)
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for module in ("moe_jax.data.seqio_tasks", *modules):
        try:
            importlib.import_module(module)
        except Exception as e:
            raise UserError(f"--module_import={module}: {type(e).__name__}: {e}") from e
    names = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
    if name not in names:
        close = difflib.get_close_matches(name, names, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
        raise UserError(
            f"data.mixture={name}: no seqio Task or Mixture has this name; {hint} (--module_import adds yours)"
        )
    return seqio.get_mixture_or_task(name)
