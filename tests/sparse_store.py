"""Stores of many tokens in little space, and how long their windows take to read.

Their shards are real files with real indices, each of which gives all its chunks the same place: 44 MB stand for 20 GB.
"""

import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorstore as ts
from etils import epath

from moe_jax.data import store as store_lib
from moe_jax.data.store import CHUNK_TOKENS, SHARD_TOKENS, Store
from moe_jax.data.vocabularies import ByteVocabulary


def sparse_store(path: Path, tokens: int, heldout: int = CHUNK_TOKENS) -> None:
    """Writes a store of so many tokens in little space: every number of shard k is k mod 256 + 3."""
    shard_chunks = SHARD_TOKENS // CHUNK_TOKENS
    index_bytes = shard_chunks * 16 + 4  # offset and length of each chunk, and a checksum
    counts = {"train": tokens, "heldout": heldout}
    vocabulary = ByteVocabulary()
    for array, split in store_lib.ARRAYS.items():
        n, dtype = counts[split], store_lib.array_dtype(array, vocabulary.size)
        chunk_of = Path(path, "chunk", array)
        template = store_lib.create_array(epath.Path(chunk_of.parent), array, CHUNK_TOKENS, dtype)
        store_lib.create_array(epath.Path(path), array, n, dtype)
        shards = Path(path, array, "c")
        shards.mkdir(exist_ok=True)
        for k in range(store_lib.n_shards(n)):
            template.write(np.full(CHUNK_TOKENS, k % 256 + 3, dtype)).result()
            encoded = (chunk_of / "c" / "0").read_bytes()
            chunk = encoded[index_bytes:]
            index = struct.pack("<QQ", index_bytes, len(chunk)) * shard_chunks
            (shards / str(k)).write_bytes(index + struct.pack("<I", crc32c(index)) + chunk)
    info = store_lib.StoreInfo(
        tokens=counts, bytes=counts, unknown=counts, documents=dict.fromkeys(counts, 1),
        heldout_spelt_bytes=counts["heldout"], skipped={},
        vocab_size=vocabulary.size, end_of_document=vocabulary.end_of_document, vocabulary=vocabulary.describe(),
        source={"name": "sparse"}, settings={}, sha256="0" * 64,
    )  # fmt: skip
    store_lib.write_info(epath.Path(path), info)


def crc32c(data: bytes) -> int:
    """The CRC-32C of `data`, by TensorStore's own codec."""
    metadata = {"shape": [len(data)], "data_type": "uint8", "codecs": [{"name": "bytes"}, {"name": "crc32c"}]}
    array = ts.open({"driver": "zarr3", "kvstore": "memory://", "metadata": metadata}, create=True).result()
    array.write(np.frombuffer(data, np.uint8)).result()
    return struct.unpack("<I", array.kvstore.read("c/0").result().value[-4:])[0]


def timed(function: Callable):
    """(milliseconds, result) of the function."""
    began = time.perf_counter()
    result = function()
    return (time.perf_counter() - began) * 1e3, result


def random_windows(store: Store, repeats: int) -> np.ndarray:
    """First tokens [repeats, 1000] of random windows of 257 training tokens."""
    return np.random.default_rng(0).integers(0, store.info.tokens["train"] - 257, (repeats, 1000))


def window_times(store: Store, repeats: int) -> list[float]:
    """Milliseconds to read 1,000 random windows of 257 tokens; every repeat reads other windows."""
    return [timed(lambda p=p: store.windows("train", p, 257))[0] for p in random_windows(store, repeats)]
