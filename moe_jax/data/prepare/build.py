"""Source -> finished token store, in parallel, resumable at any moment.

Three stages. Each part of a stage is marked when it is done, so a start after kill -9 does only what is missing:

1. training_vocabulary.py: the vocabulary, if it is to be trained;
2. pieces.py: each source shard becomes a piece, a file for each of the store's arrays;
3. assembly.py: the pieces, one after the other, become the shards of the store; then `store.json` is written.

The store depends on the source and the settings alone; the number of workers changes only who does which part. Until
the store is finished, marks and pieces lie in its own folder, under `_prepare`.
"""

import collections
import dataclasses
import errno
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.data import vocabularies
from moe_jax.data.prepare import assembly, pieces, training_vocabulary, workers
from moe_jax.data.prepare.sources import Source, reasons
from moe_jax.data.store import (
    ARRAYS,
    SPLITS,
    UNFINISHED_NAME,
    MissingStore,
    StoreInfo,
    array_dtype,
    digest,
    n_shards,
    read_info,
    write_info,
)
from moe_jax.data.vocabularies import Vocabulary
from moe_jax.errors import UserError, WorkFailed
from moe_jax.progress import stage

_UNWRITABLE = {errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user asks for; the same source with the same settings gives the same store."""

    mixture: str
    vocabulary: str
    seed: int
    text_field: str = "text"
    end_of_document: str | None = None  # the token's name; None: the vocabulary's own


def existing(path: str, settings: Settings, model_vocab_size: int | None = None) -> StoreInfo | None:
    """The finished store at `path`; None if there is none yet.

    Raises UserError if it was made with other settings, or has more token ids than `model_vocab_size` (None: any)."""
    try:
        info = read_info(path)
    except MissingStore:
        return None
    _check_same_settings(path, info.settings, settings)
    training_vocabulary.check_size(settings.vocabulary, info.vocab_size, model_vocab_size)
    return info


def build(
    path: str, source: Source, settings: Settings, n_workers: int, model_vocab_size: int | None = None
) -> StoreInfo:
    """Makes the store at `path`, or what is missing of it, in `n_workers` processes.

    Raises UserError if the source, the settings or the folder cannot be used, or if the vocabulary has more token ids
    than `model_vocab_size` (None: any), before anything is written; WorkFailed or OSError if the work fails."""
    store = epath.Path(path)
    work = store / UNFINISHED_NAME
    _check_free(store, work)
    if not source.n_shards:
        raise _too_small(source)
    given = training_vocabulary.given(source, settings.vocabulary, settings.end_of_document)
    size = given.size if given else vocabularies.bpe_size(settings.vocabulary)
    training_vocabulary.check_size(settings.vocabulary, size, model_vocab_size)
    _begin(store, work, settings)  # from here on the folder is ours
    with files.locked(work / "lock") as ours, workers.counting() as tokens:
        if not ours:
            raise WorkFailed(f"another process is preparing {store}; wait for it, or stop it and start again")
        with _begun_afresh_if_refused(path):
            vocabulary = given or training_vocabulary.trained(source, size, work / "vocabulary.model")
        made = _make_pieces(source, vocabulary, work / "pieces", n_workers, tokens)
        with _begun_afresh_if_refused(path):
            _check_kept(source, made)
        digests = _assemble(store, work, made, vocabulary.size, n_workers, tokens)
        info = _info(source, vocabulary, settings, made, digests)
        if vocabulary.file:
            name, content = vocabulary.file
            files.write_atomic(store / name, content)
        write_info(store, info)
        clean_up(path)
    return info


def clean_up(path: str) -> None:
    """Removes what a finished store no longer needs. Raises OSError."""
    work = epath.Path(path) / UNFINISHED_NAME
    if work.exists():
        work.rmtree(missing_ok=True)


@contextmanager
def _begun_afresh_if_refused(path: str) -> Iterator[None]:
    """Where the whole source is refused, nothing of the work is left: other files or settings may be given next."""
    try:
        yield
    except UserError:
        clean_up(path)
        raise


def _check_free(store: epath.Path, work: epath.Path) -> None:
    with _unwritable_in_one_sentence(store):
        if not work.exists() and store.exists() and any(store.iterdir()):
            raise UserError(f"{store} holds other things than a token store; name a new folder")


def _begin(store: epath.Path, work: epath.Path, settings: Settings) -> None:
    """Makes the work folder, or checks that it was begun with the same settings."""
    begun = work / "begun.json"
    with _unwritable_in_one_sentence(store):
        (work / "pieces").mkdir(parents=True, exist_ok=True)
        try:
            found = files.read_sealed(begun)
        except (FileNotFoundError, files.DamagedFile):  # the parts' own marks also show other settings
            found = dataclasses.asdict(settings)
            files.write_sealed(begun, found)
    _check_same_settings(str(store), found, settings)


@contextmanager
def _unwritable_in_one_sentence(store: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno not in _UNWRITABLE:
            raise
        raise WorkFailed(f"the token store {store} cannot be written: {e.strerror} at {e.filename}") from e


def _check_same_settings(path: str, found: dict[str, Any], settings: Settings) -> None:
    for field, asked in dataclasses.asdict(settings).items():
        if found.get(field) != asked:
            raise UserError(
                f"the token store {path} was made with {field}={found.get(field)}, not {asked}; "
                "name another --store, or remove that folder"
            )


def _make_pieces(
    source: Source, vocabulary: Vocabulary, folder: epath.Path, n_workers: int, tokens: Callable[[], int]
) -> list[pieces.Piece]:
    """The piece of every source shard, in order; makes those that are not finished yet.

    Where each document is held out by chance and chance takes none, the first document is held out."""
    shards = range(source.n_shards)
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()  # gs:// has no empty folders
    marked = [s for s in shards if pieces.mark(folder, s).name in names]
    check = functools.partial(pieces.finished, source, vocabulary, folder)
    found = _run("check finished shards", check, marked, n_workers, tokens)
    made = {s: piece for s, piece in found.items() if piece}
    make = functools.partial(pieces.make, source, vocabulary, folder)
    made |= _run("tokenise source shards", make, [s for s in shards if s not in made], n_workers, tokens)
    documents = {split: sum(p.documents[split] for p in made.values()) for split in SPLITS}
    if source.held_out_by_chance and documents["train"] > 1 and not documents["heldout"]:
        first = next(s for s in shards if made[s].documents["train"])
        made[first] = make(first, hold_out_first=True)
    return [made[s] for s in shards]


def _assemble(
    store: epath.Path, work: epath.Path, made: list[pieces.Piece], vocab_size: int, n_workers: int,
    tokens: Callable[[], int],
) -> dict[str, list[str]]:  # fmt: skip
    """Writes the arrays; gives the SHA-256 of each shard of each array."""
    pieces_digest = hashlib.sha256(repr(made).encode()).hexdigest()[:16]
    marks, digests = work / f"shards-{pieces_digest}", {}
    if not marks.exists():  # shards that are there were written from other pieces
        for array in ARRAYS:
            (store / array).rmtree(missing_ok=True)
        marks.mkdir()
    for array, split in ARRAYS.items():
        ends, dtype = list(itertools.accumulate(p.tokens[split] for p in made)), array_dtype(array, vocab_size)
        found = {s: assembly.finished(marks, array, s) for s in range(n_shards(ends[-1]))}
        missing = [s for s, digest in found.items() if digest is None]
        write = functools.partial(assembly.write_shard, store, work / "pieces", marks, array, ends, dtype)
        found |= _run(f"write {array}", write, missing, n_workers, tokens)
        digests[array] = [found[s] for s in sorted(found)]
    return digests


def _run(
    name: str, function: Callable[[int], Any], parts: Iterable[int], n_workers: int, tokens: Callable[[], int]
) -> dict[int, Any]:
    """part -> function(part), with the stage's progress shown."""
    parts, results = list(parts), {}
    if not parts:
        return results
    with stage(name, len(parts), tokens) as advance:
        for part, result in workers.map_unordered(function, parts, n_workers):
            results[part] = result
            advance()
    return results


def _info(
    source: Source, vocabulary: Vocabulary, settings: Settings, made: list[pieces.Piece], digests: dict[str, list[str]]
) -> StoreInfo:
    def total(counts: str) -> dict[str, int]:
        return {s: sum(getattr(p, counts)[s] for p in made) for s in SPLITS}

    meaning = {
        "vocabulary": vocabulary.describe(),
        "vocab_size": vocabulary.size,
        "end_of_document": vocabulary.end_of_document,
    }
    return StoreInfo(
        **{name: total(name) for name in ("tokens", "bytes", "unknown", "documents")},
        heldout_spelt_bytes=sum(p.heldout_spelt_bytes for p in made),
        skipped=_skipped(source, made),
        **meaning,
        end_token=vocabulary.end_token,
        source=source.describe(),
        settings=dataclasses.asdict(settings),
        sha256=digest(**meaning, shards=digests),
    )


def _check_kept(source: Source, made: list[pieces.Piece]) -> None:
    """Raises UserError if the source has too few documents, or if more of them are skipped than kept."""
    skipped, kept = _skipped(source, made), sum(sum(p.documents.values()) for p in made)
    if sum(skipped.values()) > kept:
        raise UserError(
            f"the source {source.name} is mostly unusable: {sum(skipped.values()):,} skipped ({reasons(skipped)}), and "
            f"{kept:,} documents kept; mend it, name the field that holds the text with --text_field, or name the "
            "files to read with a glob such as files:FOLDER/*.jsonl"
        )
    if not all(sum(p.tokens[split] for p in made) for split in SPLITS):
        raise _too_small(source, made)


def _too_small(source: Source, made: Iterable[pieces.Piece] = ()) -> UserError:
    made = list(made)
    documents = {split: sum(p.documents[split] for p in made) for split in SPLITS}
    skipped = _skipped(source, made)
    why = f" ({reasons(skipped)})" if skipped else ""
    return UserError(
        f"the source {source.name} is too small: {documents['train']} documents to train on, {documents['heldout']} "
        f"held out, {sum(skipped.values())} skipped{why}; there must be some of both"
    )


def _skipped(source: Source, made: Iterable[pieces.Piece]) -> dict[str, int]:
    """How many documents and files were left out, by reason."""
    skipped = collections.Counter(source.skipped_files)
    for piece in made:
        skipped.update(piece.skipped)
    return dict(sorted(skipped.items()))
