"""The token store: one long zarr3 array of token ids for each split, and `store.json`, written last.

    store/train/, store/heldout/   sharded zarr3 arrays [tokens], uint16 or uint32; TensorStore reads and writes them
    store/vocabulary.*             the vocabulary's file, where it has one
    store/store.json               `StoreInfo` and its digest; a folder without it is half-written

Local paths and gs:// alike. Chunks carry checksums, absent chunks are errors, and `store.json` answers for its own
fields, so a damaged store cannot give wrong tokens or wrong counts in silence.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from moe_jax.data import files
from moe_jax.errors import UserError, WorkFailed

FORMAT = 2
SHARD_TOKENS = 2**24  # one file or object, and the unit of a writer
CHUNK_TOKENS = 2**12  # what one read fetches at least
SPLITS = ("train", "heldout")
INFO_NAME = "store.json"
UNFINISHED_NAME = "_prepare"  # the folder where `prepare` keeps what it has done so far

# Shard indices (64 KiB each) and chunks; enough to keep all indices of 3e10 tokens.
_CACHE_BYTES = 2**27


class MissingStore(UserError):
    """There is no finished store at this path: `moe-jax prepare` makes it."""


@dataclasses.dataclass(frozen=True)
class StoreInfo:
    """What `store.json` says. Counts are by split."""

    tokens: dict[str, int]  # with the end-of-document tokens
    bytes: dict[str, int]  # of the text, in UTF-8
    token_bytes: dict[str, int]  # Σ byte_lengths over the tokens; equals `bytes` where the vocabulary loses nothing
    documents: dict[str, int]
    skipped: dict[str, int]  # documents left out, by reason
    vocabulary_size: int
    end_of_document: int
    vocabulary: dict[str, Any]
    byte_lengths: tuple[int, ...]  # [vocabulary_size], of each token id in UTF-8
    source: dict[str, Any]
    settings: dict[str, Any]  # what `prepare` was asked for
    sha256: str  # of the tokens and of what they mean
    format: int = FORMAT

    @property
    def dtype(self) -> np.dtype:
        return token_dtype(self.vocabulary_size)

    def digest_of(self, shards: dict[str, list[str]]) -> str:
        """What `sha256` is where the shards of each split have these SHA-256."""
        meaning = (self.vocabulary, self.vocabulary_size, self.end_of_document)
        return digest(*meaning, shards)


class Store:
    """A finished store, open for reading. Safe to read from several threads."""

    copy_of: str | None = None  # the store that this one is a host's copy of

    def __init__(self, path: str, info: StoreInfo):
        self.path = path
        self.info = info
        self._arrays = {split: _open_array(path, split, info) for split in SPLITS}

    def windows(self, split: str, starts: np.ndarray, length: int) -> np.ndarray:
        """Tokens [start, start + length) of the split for each of `starts` [n]: int32 [n, length]."""
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

    def shard(self, split: str, k: int) -> np.ndarray:
        """The tokens of the split's shard k [≤ SHARD_TOKENS], in the store's dtype."""
        first, last = k * SHARD_TOKENS, min((k + 1) * SHARD_TOKENS, self.info.tokens[split])
        try:
            return self._arrays[split][first:last].read().result()
        except ValueError as e:
            raise self._damaged(f"shard {k} of {split} cannot be read: {_first_line(e)}") from e

    def bytes_of(self, tokens: np.ndarray) -> int:
        """Bytes of text, in UTF-8, that these tokens (any shape) stand for."""
        return int(self._byte_lengths[tokens].sum())

    def _damaged(self, how: str) -> UserError:
        if self.copy_of is None:
            return _damaged(self.path, how)
        (epath.Path(self.path) / INFO_NAME).unlink(missing_ok=True)  # it is no finished store any more
        return WorkFailed(f"{self.path}, the copy of {self.copy_of}, is damaged ({how}); start again: it is made anew")

    @functools.cached_property
    def _byte_lengths(self) -> np.ndarray:
        return np.array(self.info.byte_lengths, np.int64)


def open_store(path: str) -> Store:
    """The finished store at `path`, a folder or gs://.

    Raises MissingStore where there is none or `prepare` has not finished it, UserError where it is damaged.
    """
    return Store(os.fspath(path), read_info(path))


def read_info(path: str) -> StoreInfo:
    """`store.json` of the store at `path`; raises as `open_store`."""
    folder = epath.Path(path)
    try:
        fields = files.read_json(folder / INFO_NAME)
    except (FileNotFoundError, NotADirectoryError):
        if (folder / UNFINISHED_NAME).exists():
            raise MissingStore(f"the token store {path} is half-written: `prepare` has not finished it") from None
        raise MissingStore(f"there is no token store at {path}") from None
    except ValueError as e:
        raise _damaged(path, f"its {INFO_NAME} is not JSON: {e}") from e
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        found = fields.get("format") if isinstance(fields, dict) else None
        raise UserError(
            f"the token store {path} has format {found}, this version reads {FORMAT}; "
            "remove the folder and prepare it again"
        )
    try:
        fields = files.unsealed(fields)
    except ValueError as e:
        raise _damaged(path, f"{INFO_NAME} was changed: {e}") from e
    return StoreInfo(**{**fields, "byte_lengths": tuple(fields["byte_lengths"])})


def write_info(path: epath.Path, info: StoreInfo) -> None:
    files.write_sealed(path / INFO_NAME, dataclasses.asdict(info))


def digest(vocabulary: dict[str, Any], vocabulary_size: int, end_of_document: int, shards: dict[str, list[str]]) -> str:
    """SHA-256 of a store: of the tokens, by the SHA-256 of each shard of each split, and of what they mean."""
    meaning = {"vocabulary": vocabulary, "vocabulary_size": vocabulary_size, "end_of_document": end_of_document}
    return hashlib.sha256(json.dumps(meaning | {"shards": shards}, sort_keys=True).encode()).hexdigest()


def shard_digest(tokens: np.ndarray) -> str:
    return hashlib.sha256(tokens.tobytes()).hexdigest()


def token_dtype(vocabulary_size: int) -> np.dtype:
    return np.dtype(np.uint16 if vocabulary_size <= 2**16 else np.uint32)


def n_shards(tokens: int) -> int:
    return math.ceil(tokens / SHARD_TOKENS)


def create_array(path: epath.Path, split: str, tokens: int, dtype: np.dtype) -> ts.TensorStore:
    """The split's array [tokens], open for writing whole shards; what is already written stays."""
    inner = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    # The index first: it is read by an ordinary range, where object stores differ about ranges from the end.
    sharding = {"chunk_shape": [CHUNK_TOKENS], "codecs": inner, "index_codecs": inner, "index_location": "start"}
    metadata = {
        "shape": [tokens],
        "data_type": dtype.name,
        "fill_value": 0,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [SHARD_TOKENS]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    spec = _spec(os.fspath(path), split) | {"metadata": metadata, "store_data_equal_to_fill_value": True}
    return ts.open(spec, open=True, create=True).result()


def _open_array(path: str, split: str, info: StoreInfo) -> ts.TensorStore:
    folder = epath.Path(path) / split / "c"
    present = sum(f.name.isdigit() for f in folder.iterdir()) if folder.exists() else 0
    if present != (expected := n_shards(info.tokens[split])):
        raise _damaged(path, f"{split} has {present} of its {expected} shards")
    try:
        context = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})
        array = ts.open(_spec(path, split), open=True, read=True, context=context).result()
    except ValueError as e:
        raise _damaged(path, f"its {split} array cannot be opened: {_first_line(e)}") from e
    if array.shape != (info.tokens[split],) or array.dtype.numpy_dtype != info.dtype:
        stated = f"{info.tokens[split]} {info.dtype.name}"
        raise _damaged(path, f"{split} holds {array.shape} {array.dtype.name}, {INFO_NAME} says {stated}")
    return array


def _spec(path: str, split: str) -> dict[str, Any]:
    url = path if "://" in path else f"file://{os.path.abspath(path)}"
    return {
        "driver": "zarr3",
        "kvstore": f"{url.rstrip('/')}/{split}/",
        "fill_missing_data_reads": False,
        "recheck_cached_metadata": False,  # a finished store never changes
        "recheck_cached_data": False,
    }


def _damaged(path: str, how: str) -> UserError:
    return UserError(f"the token store {path} is damaged ({how}); remove the folder and prepare it again")


def _first_line(e: Exception) -> str:
    return str(e).splitlines()[0].split(" [")[0]
