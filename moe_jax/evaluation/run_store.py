"""The store of a finished run, or another one with its vocabulary; and that vocabulary."""

from moe_jax.data import store as store_lib
from moe_jax.data.store import Store, StoreInfo
from moe_jax.data.store_vocabulary import read_vocabulary
from moe_jax.data.vocabularies import TextVocabulary
from moe_jax.errors import UserError
from moe_jax.sweep.run_record import RunRecord


def store_info(run: RunRecord, path: str | None) -> StoreInfo:
    """store.json of the store at `path` (None: the run's own). Raises UserError where its vocabulary is not the
    run's."""
    info = store_lib.read_info(path or run.store.path)
    if info.vocabulary != run.store.vocabulary:
        raise UserError(f"--store={path or run.store.path}: has another vocabulary than the run's store")
    return info


def open_for(run: RunRecord, path: str | None) -> Store:
    """The store, open for reading. Raises as `store_info`, and where the run's own is not the one it was trained on."""
    info = store_info(run, path)
    if path is None and info.sha256 != run.store.sha256:
        raise UserError(f"{run.store.path}: is another store than the one the run was trained on; name it with --store")
    return Store(path or run.store.path, info)


def vocabulary_of(run: RunRecord, path: str | None = None) -> TextVocabulary:
    """The vocabulary that the run was trained with, from its store, which is at `path` now where it is not where it
    was. Raises UserError as store_info and read_vocabulary, and where its ids do not fit the model."""
    if path is not None:
        store_info(run, path)
    vocabulary = read_vocabulary(path or run.store.path, run.store.vocabulary, run.store.end_of_document)
    if vocabulary.size > run.counts.vocab_size:
        raise UserError(
            f"{path or run.store.path}: its vocabulary has {vocabulary.size:,} ids, which do not fit the model's "
            f"{run.counts.vocab_size:,}"
        )
    return vocabulary
