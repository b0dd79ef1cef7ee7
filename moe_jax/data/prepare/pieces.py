"""One source shard -> a piece: its part of each of the store's arrays, in a file each.

A piece is finished when its `.json` is there, which is written last and holds the SHA-256 of these files.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import BinaryIO, NamedTuple

import numpy as np
from etils import epath

from moe_jax import files
from moe_jax.data.prepare import workers
from moe_jax.data.prepare.sources import Document, Source
from moe_jax.data.store import ARRAYS, HELDOUT_BYTES, SPLITS, array_dtype
from moe_jax.data.vocabularies import Vocabulary

# Tokens are written to the file, and counted in the progress bar, after this many bytes of text.
_BUFFER_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Piece:
    """The contents of a piece's `.json`; counts by split, as in `StoreInfo`."""

    fingerprint: str
    tokens: dict[str, int]
    bytes: dict[str, int]
    unknown: dict[str, int]
    documents: dict[str, int]
    heldout_spelt_bytes: int
    skipped: dict[str, int]
    sha256: dict[str, str]  # of each array's file


def mark(folder: epath.Path, shard: int) -> epath.Path:
    """The `.json` of the shard's piece."""
    return folder / f"{shard:06d}.json"


def array_file(folder: epath.Path, shard: int, array: str) -> epath.Path:
    """The file of the piece's part of one of the store's arrays, in the array's dtype."""
    return folder / f"{shard:06d}-{array}.numbers"


def fingerprint(source: Source, vocabulary: Vocabulary, shard: int) -> str:
    """Changes when the shard's content or the vocabulary does: then the piece is made again."""
    return f"{source.fingerprint(shard)} {vocabulary.describe()} {vocabulary.end_of_document}"


def finished(source: Source, vocabulary: Vocabulary, folder: epath.Path, shard: int) -> Piece | None:
    """The shard's piece if it is done, undamaged, and of the shard's present content; otherwise None."""
    try:
        piece = Piece(**files.read_sealed(mark(folder, shard)))
        if piece.fingerprint != fingerprint(source, vocabulary, shard):
            return None
        for array in ARRAYS:
            with array_file(folder, shard, array).open("rb") as f:
                if hashlib.file_digest(f, "sha256").hexdigest() != piece.sha256[array]:
                    return None
    except (FileNotFoundError, files.DamagedFile, TypeError):
        return None
    workers.count_tokens(sum(piece.tokens.values()))
    return piece


class _Encoded(NamedTuple):
    """A document's tokens [n] and its bytes; of a held-out one also the bytes of each token and of the end [n + 1], and
    how many the tokens spell."""

    tokens: np.ndarray
    bytes: int
    token_bytes: np.ndarray | None = None
    spelt_bytes: int = 0


class _Output:
    """One split of the piece while it is written: its files, by the name of the array, their digests and its counts."""

    def __init__(self, vocabulary: Vocabulary, opened: dict[str, BinaryIO]):
        self.tokens = self.bytes = self.unknown = self.documents = self.spelt_bytes = 0
        self.digests = {array: hashlib.sha256() for array in opened}
        self._files = opened
        self._dtypes = {array: array_dtype(array, vocabulary.size) for array in opened}
        self._unknown, self._end = vocabulary.unknown, np.array([vocabulary.end_of_document])
        self._waiting: dict[str, list[np.ndarray]] = {array: [] for array in opened}
        self._waiting_bytes = 0

    def add(self, document: _Encoded) -> None:
        """Adds a document, and the end-of-document token."""
        for array, waiting in self._waiting.items():
            waiting += [document.token_bytes] if array == HELDOUT_BYTES else [document.tokens, self._end]
        self._waiting_bytes += document.bytes
        self.bytes += document.bytes
        self.spelt_bytes += document.spelt_bytes
        self.unknown += 0 if self._unknown is None else int(np.count_nonzero(document.tokens == self._unknown))
        self.documents += 1
        if self._waiting_bytes >= _BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what is buffered to the files."""
        for array, waiting in self._waiting.items():
            if not waiting:
                continue
            numbers = np.concatenate(waiting)
            data = numbers.astype(self._dtypes[array]).tobytes()
            self._files[array].write(data)
            self.digests[array].update(data)
            waiting.clear()
            if array != HELDOUT_BYTES:
                self.tokens += len(numbers)
                workers.count_tokens(len(numbers))
        self._waiting_bytes = 0


def make(source: Source, vocabulary: Vocabulary, folder: epath.Path, shard: int, hold_out_first: bool = False) -> Piece:
    """Tokenises the shard's documents and writes its piece, each document followed by the end-of-document token.

    With `hold_out_first` the first document is held out, whatever the source says. Such a piece is never `finished`: at
    the next start chance may hold out another document. Raises UserError if the shard cannot be read, OSError."""
    made_of = fingerprint(source, vocabulary, shard) + " first held out" * hold_out_first
    skipped: collections.Counter[str] = collections.Counter()
    spelling = functools.cache(lambda: vocabulary.spelt_bytes())  # a loop over the vocabulary; texts alone need it
    with contextlib.ExitStack() as stack:
        opened = {array: stack.enter_context(files.writing(array_file(folder, shard, array))) for array in ARRAYS}
        outputs = {
            split: _Output(vocabulary, {array: opened[array] for array, of in ARRAYS.items() if of == split})
            for split in SPLITS
        }
        for i, document in enumerate(source.documents(shard, lambda reason: skipped.update([reason]))):
            split = "heldout" if hold_out_first and i == 0 else document.split
            outputs[split].add(_encoded(document, vocabulary, split, spelling))
        for output in outputs.values():
            output.flush()

    def by_split(count: str) -> dict[str, int]:
        return {split: getattr(output, count) for split, output in outputs.items()}

    counts = {count: by_split(count) for count in ("tokens", "bytes", "unknown", "documents")}
    sha256 = {array: digest.hexdigest() for output in outputs.values() for array, digest in output.digests.items()}
    counts["heldout_spelt_bytes"] = outputs["heldout"].spelt_bytes
    piece = Piece(made_of, skipped=dict(sorted(skipped.items())), sha256=sha256, **counts)
    files.write_sealed(mark(folder, shard), dataclasses.asdict(piece))
    return piece


def _encoded(document: Document, vocabulary: Vocabulary, split: str, spelling: Callable[[], np.ndarray]) -> _Encoded:
    """The document's tokens. Where in a text each of them ends takes longer to know, and only evaluation asks."""
    if document.tokens is not None:
        n = int(document.token_bytes.sum())
        return _Encoded(document.tokens, n, np.append(document.token_bytes, 0), n)
    if split == "heldout":
        tokens, token_bytes = vocabulary.encode_with_bytes(document.text)
        return _Encoded(tokens, int(token_bytes.sum()), token_bytes, int(spelling()[tokens].sum()))
    return _Encoded(vocabulary.encode(document.text), len(document.text.encode()))
