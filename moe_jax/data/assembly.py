"""Pieces -> the store's arrays. A worker owns whole shards of the store, so no two write to one file."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from moe_jax.data import files, pieces, workers
from moe_jax.data.store import SHARD_TOKENS, create_array, shard_digest
from moe_jax.errors import WorkFailed


def finished(folder: epath.Path, split: str, shard: int) -> str | None:
    """SHA-256 of the store shard's tokens, if it is written."""
    try:
        return files.read_sealed(_mark(folder, split, shard))["sha256"]
    except (FileNotFoundError, ValueError):
        return None


def write_shard(
    store: epath.Path, pieces_folder: epath.Path, folder: epath.Path, split: str, ends: Sequence[int], dtype: np.dtype,
    shard: int,
) -> str:  # fmt: skip
    """Writes the shard's tokens of the split and gives their SHA-256; piece i of the split ends at token ends[i]."""
    first, last = shard * SHARD_TOKENS, min((shard + 1) * SHARD_TOKENS, ends[-1])
    tokens = np.empty(last - first, dtype)
    i = int(np.searchsorted(ends, first, side="right"))
    at = first
    while at < last:
        begins = ends[i - 1] if i else 0
        upto = min(ends[i], last)
        tokens[at - first : upto - first] = _read(pieces_folder, i, split, at - begins, upto - at, dtype)
        at = upto
        i += 1
    with files.os_errors(store):
        create_array(store, split, ends[-1], dtype)[first:last].write(tokens).result()
    workers.count(len(tokens))
    digest = shard_digest(tokens)
    files.write_sealed(_mark(folder, split, shard), {"sha256": digest})
    return digest


def _read(folder: epath.Path, piece: int, split: str, first: int, n: int, dtype: np.dtype) -> np.ndarray:
    path = pieces.token_file(folder, piece, split)
    with path.open("rb") as f:
        f.seek(first * dtype.itemsize)
        data = f.read(n * dtype.itemsize)
    if len(data) != n * dtype.itemsize:
        raise WorkFailed(f"{path} is shorter than it was written; remove {folder.parent} and prepare again")
    return np.frombuffer(data, dtype)


def _mark(folder: epath.Path, split: str, shard: int) -> epath.Path:
    return folder / f"{split}-{shard:06d}.json"
