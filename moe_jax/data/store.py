"""The token store: one long zarr3 array of token ids for each split, and `store.json`, written last.

    STORE/train/, STORE/heldout/             sharded zarr3 arrays [tokens], uint16 or uint32, read through TensorStore
    STORE/heldout_bytes/                     one more, uint32: how many bytes of its text each held-out token stands for
    STORE/vocabulary.model, tokenizer.json   the vocabulary's file, if it has one
    STORE/store.json                         `StoreInfo`, sealed; a folder without it is half-written

Local paths and gs:// alike. Chunks have checksums, a missing chunk is an error, and `store.json` is sealed, so that a
damaged store cannot silently give wrong tokens or wrong counts.
"""

import dataclasses
import hashlib
import json
import math
import os
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from moe_jax import files, records
from moe_jax.errors import UserError, WorkFailed

FORMAT = 3
SHARD_TOKENS = 2**24  # one file or object, and the unit of a writer
CHUNK_TOKENS = 2**12  # the least that a read fetches
SPLITS = ("train", "heldout")
HELDOUT_BYTES = "heldout_bytes"
ARRAYS = {"train": "train", "heldout": "heldout", HELDOUT_BYTES: "heldout"}  # with a number a token of this split
INFO_NAME = "store.json"
UNFINISHED_NAME = "_prepare"  # the folder where `prepare` keeps what it has done so far

# For shard indices (64 KiB each) and chunks: enough for all indices of 3e10 tokens.
_CACHE_BYTES = 2**27
_READS_AT_ONCE = 1024
_STRETCH_TOKENS = 2**20  # about the most that one read of held-out bytes takes


class MissingStore(UserError):
    """There is no finished store at this path: `moe-jax prepare` makes it."""


@dataclasses.dataclass(frozen=True)
class StoreInfo:
    """The contents of `store.json`. Counts are by split."""

    tokens: dict[str, int]  # including the end-of-document tokens
    bytes: dict[str, int]  # of the text, in UTF-8; those that the tokens spell, where the source gives no text
    unknown: dict[str, int]  # tokens that stand for text which the vocabulary has no other token for
    documents: dict[str, int]
    heldout_spelt_bytes: int  # that the held-out tokens spell: others than the text's where a tokenizer changes it
    skipped: dict[str, int]  # documents and files left out, by reason, in both splits
    vocab_size: int
    end_of_document: int
    vocabulary: dict[str, Any]
    source: dict[str, Any]
    settings: dict[str, Any]  # the flags of `prepare`
    sha256: str  # of the arrays and the vocabulary, see `digest`
    format: int = FORMAT
    end_token: str = ""  # how the vocabulary spells end_of_document

    def digest_of(self, shards: dict[str, list[str]]) -> str:
        """The `sha256` of a store like this one, whose shards of each array have the given SHA-256."""
        return digest(self.vocabulary, self.vocab_size, self.end_of_document, shards)


class Store:
    """A finished store, open for reading. Safe to read from several threads."""

    copy_of: str | None = None  # the path of the original, if this is a host's copy (cache.py)

    def __init__(self, path: str, info: StoreInfo):
        self.path = path
        self.info = info
        self._arrays = {array: _open_array(path, array, info) for array in ARRAYS}

    def windows(self, split: str, starts: np.ndarray, length: int) -> np.ndarray:
        """Tokens [start, start + length) of the split for each of `starts` [n]: int32 [n, length].

        Raises ValueError if a window leaves the split, UserError if the store is damaged."""
        starts = np.asarray(starts, np.int64)
        if starts.size and (starts.min() < 0 or starts.max() + length > self.info.tokens[split]):
            raise ValueError(f"windows of {length} from {starts.min()}..{starts.max()} leave {split} of {self.path}")
        array = self._arrays[split]
        windows = np.empty((len(starts), length), np.int32)
        try:
            reads = [array[start : start + length].read() for start in starts.tolist()]
            for row, read in zip(windows, reads, strict=True):
                row[:] = read.result()
        except ValueError as e:
            raise self._damaged(f"its {split} tokens cannot be read: {_first_line(e)}") from e
        return windows

    def shard(self, array: str, k: int) -> np.ndarray:
        """The array's shard k [≤ SHARD_TOKENS], in its own dtype. Raises UserError if the store is damaged."""
        first, last = k * SHARD_TOKENS, min((k + 1) * SHARD_TOKENS, self.info.tokens[ARRAYS[array]])
        try:
            return self._arrays[array][first:last].read().result()
        except ValueError as e:
            raise self._damaged(f"shard {k} of {array} cannot be read: {_first_line(e)}") from e

    def held_out_bytes(self, starts: np.ndarray, length: int) -> int:
        """Bytes of source text, in UTF-8, that the held-out tokens [start, start + length) stand for, summed over
        `starts` [n]. Windows that lie close to each other are read together.

        Raises UserError if the store is damaged."""
        starts = np.sort(np.asarray(starts, np.int64))
        stretches = [s for s in np.split(starts, _cuts(starts, length)) if s.size]
        array, total = self._arrays[HELDOUT_BYTES], 0
        try:
            for i in range(0, len(stretches), _READS_AT_ONCE):
                some = stretches[i : i + _READS_AT_ONCE]
                reads = [array[s[0] : s[-1] + length].read() for s in some]
                for s, read in zip(some, reads, strict=True):
                    before = np.concatenate([[0], np.cumsum(read.result(), dtype=np.int64)])  # bytes before each token
                    total += int((before[s - s[0] + length] - before[s - s[0]]).sum())
        except ValueError as e:
            raise self._damaged(f"its {HELDOUT_BYTES} cannot be read: {_first_line(e)}") from e
        return total

    def _damaged(self, how: str) -> UserError:
        if self.copy_of is None:
            return _damaged(self.path, how)
        (epath.Path(self.path) / INFO_NAME).unlink(missing_ok=True)  # no longer a finished store
        return WorkFailed(f"{self.path}, the copy of {self.copy_of}, is damaged ({how}); start again: it is made anew")


def _cuts(starts: np.ndarray, length: int) -> np.ndarray:
    """Where sorted windows fall apart into stretches that are each read at once: at gaps of more than a chunk, and
    where a stretch would be long."""
    far = np.diff(starts) > length + CHUNK_TOKENS
    long = np.diff((starts - starts[:1]) // _STRETCH_TOKENS) > 0
    return np.flatnonzero(far | long) + 1


def open_store(path: str) -> Store:
    """Opens the finished store at `path`, a folder or gs://.

    Raises MissingStore if there is none or `prepare` has not finished it, UserError if it is damaged."""
    return Store(os.fspath(path), read_info(path))


def read_info(path: str) -> StoreInfo:
    """Reads `store.json` of the store at `path`; raises as `open_store`."""
    folder = epath.Path(path)
    info_path = folder / INFO_NAME
    try:
        fields = files.read_json(info_path)
    except (FileNotFoundError, NotADirectoryError):
        if (folder / UNFINISHED_NAME).exists():
            raise MissingStore(f"the token store {path} is half-written: `prepare` has not finished it") from None
        raise MissingStore(f"there is no token store at {path}") from None
    except files.UnreadableFile:
        raise
    except files.DamagedFile as e:
        raise _damaged(path, f"its {INFO_NAME} is not a whole JSON object") from e
    if fields.get("format") != FORMAT:
        raise UserError(
            f"the token store {path} has format {fields.get('format')}, this version reads {FORMAT}; "
            "remove the folder and prepare it again"
        )
    try:
        fields = files.unsealed(info_path, fields)
        info = records.read(StoreInfo, fields)
        if other := fields.keys() - {field.name for field in dataclasses.fields(StoreInfo)}:
            raise UserError(f"there is no {min(other)}")
        if any(set(counts) != set(SPLITS) for counts in (info.tokens, info.bytes, info.unknown, info.documents)):
            raise UserError(f"its counts are not of {' and '.join(SPLITS)}")
        if not 0 <= info.end_of_document < info.vocab_size <= 2**32:
            raise UserError(f"end_of_document is {info.end_of_document}, of {info.vocab_size} tokens")
        return info
    except files.DamagedFile as e:
        raise _damaged(path, f"its {INFO_NAME} was changed: the fields do not give its digest") from e
    except UserError as e:  # the digest is right, so this is no damage
        raise UserError(
            f"the token store {path} was written by another version of moe_jax: its {INFO_NAME} has other fields "
            f"({e}); remove the folder and prepare it again"
        ) from e


def write_info(path: epath.Path, info: StoreInfo) -> None:
    """Writes `store.json`, which makes the store at `path` a finished one. Raises OSError."""
    files.write_sealed(path / INFO_NAME, dataclasses.asdict(info))


def digest(vocabulary: dict[str, Any], vocab_size: int, end_of_document: int, shards: dict[str, list[str]]) -> str:
    """A store's SHA-256: of the arrays, by the SHA-256 of each shard of each array, and of the vocabulary."""
    meaning = {"vocabulary": vocabulary, "vocab_size": vocab_size, "end_of_document": end_of_document}
    return hashlib.sha256(json.dumps(meaning | {"shards": shards}, sort_keys=True).encode()).hexdigest()


def shard_digest(numbers: np.ndarray) -> str:
    """SHA-256 of an array's shard, in the array's dtype."""
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def array_dtype(array: str, vocab_size: int) -> np.dtype:
    """The dtype of one of a store's ARRAYS: for token ids the smallest that a store uses for this many."""
    return np.dtype(np.uint16 if array in SPLITS and vocab_size <= 2**16 else np.uint32)


def n_shards(tokens: int) -> int:
    """The number of shards of an array with so many tokens' numbers."""
    return math.ceil(tokens / SHARD_TOKENS)


def create_array(path: epath.Path, array: str, tokens: int, dtype: np.dtype) -> ts.TensorStore:
    """Opens the array [tokens] for writing whole shards; shards that are there already stay."""
    plain, checksum = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    # Tokens are read at random and hardly shrink; numbers of bytes are read once, and shrink sevenfold or more.
    compression = [{"name": "zstd", "configuration": {"level": 3}}] * (array == HELDOUT_BYTES)
    # The index first, so that an ordinary range reads it: object stores differ about ranges from the end.
    sharding = {
        "chunk_shape": [CHUNK_TOKENS],
        "codecs": [plain, *compression, checksum],
        "index_codecs": [plain, checksum],
        "index_location": "start",
    }
    metadata = {
        "shape": [tokens],
        "data_type": dtype.name,
        "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [SHARD_TOKENS]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    spec = _spec(os.fspath(path), array) | {"metadata": metadata, "store_data_equal_to_fill_value": True}
    return ts.open(spec, open=True, create=True).result()


def _open_array(path: str, array: str, info: StoreInfo) -> ts.TensorStore:
    tokens, dtype = info.tokens[ARRAYS[array]], array_dtype(array, info.vocab_size)
    folder = epath.Path(path) / array / "c"
    present = sum(f.name.isdigit() for f in folder.iterdir()) if folder.exists() else 0
    if present != (expected := n_shards(tokens)):
        raise _damaged(path, f"{array} has {present} of its {expected} shards")
    try:
        context = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})
        opened = ts.open(_spec(path, array), open=True, read=True, context=context).result()
    except ValueError as e:
        raise _damaged(path, f"its {array} array cannot be opened: {_first_line(e)}") from e
    if opened.shape != (tokens,) or opened.dtype.numpy_dtype != dtype:
        stated = f"{tokens} {dtype.name}"
        raise _damaged(path, f"{array} holds {opened.shape} {opened.dtype.name}, {INFO_NAME} says {stated}")
    return opened


def _spec(path: str, array: str) -> dict[str, Any]:
    url = path if files.is_remote(path) else f"file://{os.path.abspath(path)}"
    return {
        "driver": "zarr3",
        "kvstore": f"{url.rstrip('/')}/{array}/",
        "fill_missing_data_reads": False,
        "recheck_cached_metadata": False,  # a finished store never changes
        "recheck_cached_data": False,
    }


def _damaged(path: str, how: str) -> UserError:
    return UserError(f"the token store {path} is damaged ({how}); remove the folder and prepare it again")


def _first_line(e: Exception) -> str:
    return str(e).splitlines()[0].split(" [")[0]
