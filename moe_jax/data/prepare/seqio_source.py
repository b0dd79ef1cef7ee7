"""Any registered seqio Task or Mixture as a source. Imports TensorFlow when one is read.

A Mixture keeps its rates: a shard of the source is the same shard of every Task, sampled at the rates until the first
Task's is used up, each document at most once. A "validation" split is the held-out part; without one, one document in a
hundred is held out.
"""

import dataclasses
import difflib
import functools
import hashlib
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath

from moe_jax.config import own_modules
from moe_jax.data.prepare.seqio_vocabulary import TaskVocabulary, task_vocabulary
from moe_jax.data.prepare.sources import HELDOUT_FRACTION, Document, keyed_fraction
from moe_jax.errors import UserError

_FEATURE = "targets"


@dataclasses.dataclass(frozen=True)
class SeqioSource:
    """The documents of a Task or Mixture: the "targets" of its examples, texts or token ids of its own vocabulary.

    Its methods raise UserError if the name is not registered, or the data cannot be read."""

    name: str
    seed: int
    module_import: tuple[str, ...] = ()  # modules that register the user's own names
    tfds_data_dir: str | None = None
    skipped_files = {}  # noqa: RUF012

    @functools.cached_property
    def _provider(self) -> Any:
        """The Task or Mixture."""
        return _load(self.name, self.module_import, self.tfds_data_dir)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_provider"}

    @functools.cached_property
    def _shards(self) -> list[tuple[str, int, int]]:
        """(seqio's split, index, number of the split's shards) for each shard of the source."""
        splits = [s for s in ("train", "validation") if s in self._provider.splits]
        counts = {s: min(len(t.source.list_shards(s)) for t in self._tasks if s in t.splits) for s in splits}
        return [(split, i, n) for split, n in counts.items() for i in range(n)]

    @property
    def _tasks(self) -> list[Any]:
        return list(getattr(self._provider, "tasks", [self._provider]))

    @property
    def n_shards(self) -> int:
        """As Source."""
        try:
            return len(self._shards)
        except UserError:
            raise
        except Exception as e:  # a data source may raise anything
            raise self._unreadable(e) from e

    @functools.cached_property
    def vocabulary(self) -> TaskVocabulary | None:
        """The vocabulary of the documents' token ids; None if documents are texts."""
        features = self._provider.output_features
        if _FEATURE not in features:
            raise UserError(f"{self.name}: has the features {', '.join(features)}, but training reads {_FEATURE!r}")
        feature = features[_FEATURE]
        return None if feature.dtype.name == "string" else task_vocabulary(self.name, feature.vocabulary)

    def fingerprint(self, shard: int) -> str:
        """As Source; a changed size or time of one of the split's files changes it."""
        split, index, n = self._shards[shard]
        made_of = (self.describe(), self.seed, split, index, n, self._files[split])
        return hashlib.sha256(repr(made_of).encode()).hexdigest()

    @functools.cached_property
    def _files(self) -> dict[str, list[Any]]:
        """The names, sizes and times of each split's files."""
        splits = {split for split, _, _ in self._shards}
        return {
            s: [_name_size_time(str(f)) for t in self._tasks if s in t.splits for f in t.source.list_shards(s)]
            for s in splits
        }

    @functools.cached_property
    def held_out_by_chance(self) -> bool:
        """As Source: whether there is no "validation" split."""
        return all(split != "validation" for split, _, _ in self._shards)

    def documents(self, shard: int, skip: Callable[[str], None]) -> Iterator[Document]:
        """As Source; a text that is not UTF-8 is skipped ("not UTF-8")."""
        split, index, n = self._shards[shard]
        for i, example in enumerate(self._examples(split, index, n)):
            if not self.held_out_by_chance:
                to_split = "train" if split == "train" else "heldout"
            else:
                to_split = "heldout" if keyed_fraction(f"{index}/{n}:{i}", self.seed) < HELDOUT_FRACTION else "train"
            yield from self._document(to_split, example[_FEATURE], skip)

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

    def _document(self, split: str, target: Any, skip: Callable[[str], None]) -> Iterator[Document]:
        if self.vocabulary is None:
            try:
                text = target.decode()
            except UnicodeDecodeError:
                skip("not UTF-8")
                return
            yield Document(split, text)
        else:
            # The Task may end documents itself (seqio.preprocessors.append_eos); `prepare` ends every document.
            ends = target.size and target[-1] == self.vocabulary.end_of_document
            tokens = np.asarray(target[:-1] if ends else target)
            yield Document(split, None, tokens, self.vocabulary.bytes_of(tokens))

    def describe(self) -> dict[str, Any]:
        """As Source."""
        rates = {t.name: float(self._provider.get_rate(t)) if t is not self._provider else 1.0 for t in self._tasks}
        return {"name": self.name, "seqio_rates": rates}

    def _unreadable(self, e: Exception) -> UserError:
        return UserError(f"the seqio mixture {self.name} cannot be read: {type(e).__name__}: {str(e).splitlines()[0]}")


def _name_size_time(file: str) -> tuple[Any, ...]:
    try:
        stat = epath.Path(file).stat()
    except Exception:  # a name of the Task's own that is no file, or a file that only TensorFlow can reach
        return (file,)
    return (file,) if stat.is_directory else (file, stat.length, stat.mtime)


@functools.cache
def _load(name: str, modules: tuple[str, ...], tfds_data_dir: str | None) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        import seqio
        import tensorflow as tf
    except ImportError as e:
        raise UserError(f"data.mixture={name} needs seqio, which cannot be imported: {e}") from e
    tf.config.set_visible_devices([], "GPU")  # tokenising needs no GPU, and TensorFlow would take all of its memory
    if tfds_data_dir:
        seqio.set_tfds_data_dir_override(tfds_data_dir)
    own_modules.look_in_current_folder()
    for module in ("moe_jax.data.prepare.seqio_tasks", *modules):
        try:
            importlib.import_module(module)
        except Exception as e:
            raise UserError(f"--module_import={module}: {type(e).__name__}: {e}") from e
    names = sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})
    if name not in names:
        close = difflib.get_close_matches(name, names, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
        raise UserError(
            f"data.mixture={name}: no seqio Task or Mixture has this name; {hint} (--module_import=MODULE adds yours)"
        )
    return seqio.get_mixture_or_task(name)
