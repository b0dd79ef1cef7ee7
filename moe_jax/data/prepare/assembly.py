"""Pieces -> the store's arrays. A worker writes whole shards of the store, so no two write to one file."""

from collections.abc import Sequence

import numpy as np
from etils import epath

from moe_jax import files
from moe_jax.data.prepare import pieces, workers
from moe_jax.data.store import SHARD_TOKENS, create_array, shard_digest
from moe_jax.errors import WorkFailed


def finished(marks: epath.Path, array: str, shard: int) -> str | None:
    """The SHA-256 of the numbers in the array's shard if it is written, otherwise None."""
    try:
        return files.read_sealed(_mark(marks, array, shard))["sha256"]
    except (FileNotFoundError, files.DamagedFile):
        return None


def write_shard(
    store: epath.Path, pieces_folder: epath.Path, marks: epath.Path, array: str, ends: Sequence[int], dtype: np.dtype,
    shard: int,
) -> str:  # fmt: skip
    """Writes one shard of the array and marks it as done; gives the SHA-256 of its numbers.

    Piece i of the array's split ends before token ends[i]. Raises WorkFailed if a piece is too short, OSError."""
    first, last = shard * SHARD_TOKENS, min((shard + 1) * SHARD_TOKENS, ends[-1])
    numbers = np.empty(last - first, dtype)
    i = int(np.searchsorted(ends, first, side="right"))
    at = first
    while at < last:
        begins = ends[i - 1] if i else 0
        upto = min(ends[i], last)
        numbers[at - first : upto - first] = _read(pieces_folder, i, array, at - begins, upto - at, dtype)
        at = upto
        i += 1
    with files.tensorstore_errors(store):
        create_array(store, array, ends[-1], dtype)[first:last].write(numbers).result()
    workers.count_tokens(len(numbers))
    digest = shard_digest(numbers)
    files.write_sealed(_mark(marks, array, shard), {"sha256": digest})
    return digest


def _read(folder: epath.Path, piece: int, array: str, first: int, n: int, dtype: np.dtype) -> np.ndarray:
    """The numbers of tokens [first, first + n) of the piece."""
    path = pieces.array_file(folder, piece, array)
    with path.open("rb") as f:
        f.seek(first * dtype.itemsize)
        data = f.read(n * dtype.itemsize)
    if len(data) != n * dtype.itemsize:
        raise WorkFailed(f"{path} is shorter than it was written; remove {folder.parent} and prepare again")
    return np.frombuffer(data, dtype)


def _mark(marks: epath.Path, array: str, shard: int) -> epath.Path:
    return marks / f"{array}-{shard:06d}.json"
