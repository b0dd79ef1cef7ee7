"""Source -> finished token store, in parallel, resumable at any moment.

Three stages, each of parts that are marked when they are done, so that a start after kill -9 does only what is missing:

1. the vocabulary, if it is to be trained;
2. pieces.py: each source shard becomes a file of tokens for each split;
3. assembly.py: the pieces, one after the other, become the shards of the store; then `store.json`.

What is written depends on the source and the settings alone: workers only decide who does which part. All of it lies
in the store's own folder, under `_prepare`, which goes when the store is finished.
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

import numpy as np
from etils import epath

from moe_jax.data import assembly, files, pieces, vocabularies, workers
from moe_jax.data.progress import stage
from moe_jax.data.sources import Source
from moe_jax.data.store import (
    SPLITS,
    UNFINISHED_NAME,
    MissingStore,
    StoreInfo,
    digest,
    n_shards,
    read_info,
    token_dtype,
    write_info,
)
from moe_jax.data.vocabularies import Vocabulary
from moe_jax.errors import UserError, WorkFailed

# A trained vocabulary sees so much text, from up to so many shards evenly over the source.
_TRAINING_CHARACTERS = 4_000_000
_TRAINING_SHARDS = 16

# What `--vocabulary` says for a source that brings its own.
TASK_VOCABULARY = "task"

_NO_PLACE = {errno.ENOTDIR, errno.EEXIST, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the user asked for; the same source with the same settings gives the same store."""

    mixture: str
    vocabulary: str
    seed: int
    text_field: str = "text"


def existing(path: str, settings: Settings) -> StoreInfo | None:
    """The finished store at `path`, None where there is none yet; UserError if it was made with other settings."""
    try:
        info = read_info(path)
    except MissingStore:
        return None
    _same_settings(path, info.settings, settings)
    return info


def build(path: str, source: Source, settings: Settings, n_workers: int) -> StoreInfo:
    """Makes the store at `path`, or what is missing of it. Raises UserError or OSError as `prepare` documents."""
    store = epath.Path(path)
    work = store / UNFINISHED_NAME
    _refuse_other_things(store, work)
    if not source.n_shards:
        raise _empty(source)
    size = vocabularies.bpe_size(settings.vocabulary)
    given = None if size and source.vocabulary is None else _given(source, settings.vocabulary)
    _begin(store, work, settings)  # from here on the folder is ours
    with files.locked(work / "lock") as alone, workers.counting() as tokens:
        if not alone:
            raise WorkFailed(f"another process is preparing {store}; wait for it, or stop it and start again")
        vocabulary = given or _trained(source, size, work / "vocabulary.model")
        made = _make_pieces(source, vocabulary, work / "pieces", n_workers, tokens)
        digests = _assemble(store, work, made, token_dtype(vocabulary.size), n_workers, tokens)
        info = _info(source, vocabulary, settings, made, digests)
        if vocabulary.file:
            name, content = vocabulary.file
            with files.writing(store / name) as f:
                f.write(content)
        write_info(store, info)
        clean_up(path)
    return info


def clean_up(path: str) -> None:
    """Removes what a finished store no longer needs."""
    work = epath.Path(path) / UNFINISHED_NAME
    if work.exists():
        work.rmtree(missing_ok=True)


def _refuse_other_things(store: epath.Path, work: epath.Path) -> None:
    with _no_place_told(store):
        if not work.exists() and store.exists() and any(store.iterdir()):
            raise UserError(f"{store} holds other things than a token store; name a new folder")


def _begin(store: epath.Path, work: epath.Path, settings: Settings) -> None:
    begun = work / "begun.json"
    with _no_place_told(store):
        (work / "pieces").mkdir(parents=True, exist_ok=True)
        try:
            found = files.read_sealed(begun)
        except (FileNotFoundError, ValueError):  # what was made with other settings is told by its own marks too
            found = dataclasses.asdict(settings)
            files.write_sealed(begun, found)
    _same_settings(str(store), found, settings)


@contextmanager
def _no_place_told(store: epath.Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno not in _NO_PLACE:
            raise
        raise WorkFailed(f"the token store {store} cannot be written: {e.strerror} at {e.filename}") from e


def _same_settings(path: str, found: dict[str, Any], settings: Settings) -> None:
    for field, asked in dataclasses.asdict(settings).items():
        if found.get(field) != asked:
            raise UserError(
                f"the token store {path} was made with {field}={found.get(field)}, not {asked}; "
                "name another --store, or remove that folder"
            )


def _given(source: Source, spec: str) -> Vocabulary:
    if (spec == TASK_VOCABULARY) != (source.vocabulary is not None):
        if source.vocabulary is None:
            raise UserError(f"vocabulary {spec}: {source.name} gives texts; name a vocabulary to make tokens with")
        raise UserError(
            f"vocabulary {spec}: {source.name} gives token ids of its own vocabulary; use {TASK_VOCABULARY}"
        )
    return source.vocabulary or vocabularies.load(spec)


def _trained(source: Source, size: int, path: epath.Path) -> Vocabulary:
    """The vocabulary at `path`, trained anew where it is missing or damaged, or was trained on another content."""
    mark = path.with_suffix(".json")
    trained_on = [source.fingerprint(shard) for shard in _training_shards(source)]

    def fields(model: bytes) -> dict[str, Any]:
        return {"size": size, "trained_on": trained_on, "sha256": hashlib.sha256(model).hexdigest()}

    try:
        model = path.read_bytes()
        trained = files.read_sealed(mark) == fields(model)
    except (FileNotFoundError, ValueError):
        trained = False
    if not trained:
        model = vocabularies.train_bpe(size, _training_texts(source))
        with files.writing(path) as f:
            f.write(model)
        files.write_sealed(mark, fields(model))
    return vocabularies.SentencePieceVocabulary(model, str(path))


def _training_shards(source: Source) -> list[int]:
    n = min(source.n_shards, _TRAINING_SHARDS)
    return [source.n_shards * i // n for i in range(n)]


def _training_texts(source: Source) -> Iterator[str]:
    """Training documents from the beginnings of shards evenly over the source."""
    shards = _training_shards(source)
    for shard in shards:
        left = _TRAINING_CHARACTERS // len(shards)
        for document in source.documents(shard, lambda reason: None):
            if document.split == "train":
                yield document.text[:left]
                left -= len(document.text)
            if left <= 0:
                break


def _make_pieces(
    source: Source, vocabulary: Vocabulary, folder: epath.Path, n_workers: int, tokens: Callable[[], int]
) -> list[pieces.Piece]:
    shards = range(source.n_shards)
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()  # gs:// has no empty folders
    marked = [s for s in shards if pieces.mark(folder, s).name in names]
    check = functools.partial(pieces.finished, source, vocabulary, folder)
    found = _run("check what is there", check, marked, n_workers, tokens)
    made = {s: piece for s, piece in found.items() if piece}
    make = functools.partial(pieces.make, source, vocabulary, folder)
    made |= _run("tokenise source shards", make, [s for s in shards if s not in made], n_workers, tokens)
    documents = {split: sum(p.documents[split] for p in made.values()) for split in SPLITS}
    if source.held_out_by_chance and documents["train"] > 1 and not documents["heldout"]:
        first = next(s for s in shards if made[s].documents["train"])
        made[first] = make(first, hold_out_first=True)
    if not all(sum(p.tokens[split] for p in made.values()) for split in SPLITS):
        raise _empty(source, [made[s] for s in shards])
    return [made[s] for s in shards]


def _assemble(
    store: epath.Path, work: epath.Path, made: list[pieces.Piece], dtype: np.dtype, n_workers: int,
    tokens: Callable[[], int],
) -> dict[str, list[str]]:  # fmt: skip
    """Writes the arrays; gives the SHA-256 of each shard of each split."""
    of_these = hashlib.sha256(repr(made).encode()).hexdigest()[:16]
    marks, digests = work / f"shards-{of_these}", {}
    if not marks.exists():  # what is there was written from other pieces
        for split in SPLITS:
            (store / split).rmtree(missing_ok=True)
        marks.mkdir()
    for split in SPLITS:
        ends = list(itertools.accumulate(p.tokens[split] for p in made))
        found = {s: assembly.finished(marks, split, s) for s in range(n_shards(ends[-1]))}
        missing = [s for s, digest in found.items() if digest is None]
        write = functools.partial(assembly.write_shard, store, work / "pieces", marks, split, ends, dtype)
        found |= _run(f"write {split}", write, missing, n_workers, tokens)
        digests[split] = [found[s] for s in sorted(found)]
    return digests


def _run(
    what: str, function: Callable[[int], Any], parts: Iterable[int], n_workers: int, tokens: Callable[[], int]
) -> dict[int, Any]:
    parts, results = list(parts), {}
    if not parts:
        return results
    with stage(what, len(parts), tokens) as advance:
        for part, result in workers.each(function, parts, n_workers):
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
        "vocabulary_size": vocabulary.size,
        "end_of_document": vocabulary.end_of_document,
    }
    return StoreInfo(
        **{name: total(name) for name in ("tokens", "bytes", "token_bytes", "documents")},
        skipped=_skipped(made),
        **meaning,
        byte_lengths=tuple(vocabulary.byte_lengths().tolist()),
        source=source.describe(),
        settings=dataclasses.asdict(settings),
        sha256=digest(**meaning, shards=digests),
    )


def _empty(source: Source, made: Iterable[pieces.Piece] = ()) -> UserError:
    made = list(made)
    documents = {split: sum(p.documents[split] for p in made) for split in SPLITS}
    reasons = ", ".join(f"{n} {reason}" for reason, n in _skipped(made).items())
    return UserError(
        f"the source {source.name} is too small: {documents['train']} documents to train on, {documents['heldout']} "
        f"held out, {sum(_skipped(made).values())} skipped{reasons and f' ({reasons})'}; there must be some of both"
    )


def _skipped(made: Iterable[pieces.Piece]) -> dict[str, int]:
    """How many documents were left out, by reason."""
    skipped: collections.Counter[str] = collections.Counter()
    for piece in made:
        skipped.update(piece.skipped)
    return dict(sorted(skipped.items()))
