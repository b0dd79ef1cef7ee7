"""How fast text becomes tokens, and tokens batches:  python experiments/benchmarks/data.py  (about a minute)

Tokenising is measured on Python's standard library in one process, in seconds of its CPU. Reading is measured on stores
of 1e7 to 1e10 tokens whose shards are real files with real indices, each of which gives all its chunks the same place:
44 MB stand for 20 GB.
"""

import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorstore as ts
from etils import epath
from rich.console import Console
from rich.table import Table

from moe_jax.data import pieces, vocabularies
from moe_jax.data import store as store_lib
from moe_jax.data.batches import Batches
from moe_jax.data.corpus import PythonLibrary
from moe_jax.data.prefetch import Prefetcher
from moe_jax.data.store import CHUNK_TOKENS, SHARD_TOKENS, Store, open_store
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary, SentencePieceVocabulary, TextVocabulary
from moe_jax.metrics import Times


def main() -> None:
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        console.print(tokenising(Path(folder)), reading(Path(folder)), batching(Path(folder)))


def tokenising(folder: Path) -> Table:
    table = Table("vocabulary", "MB/s of text a core", "tokens/s a core", "bytes a token", title="prepare: tokenising")
    source = PythonLibrary(seed=0)
    for name, vocabulary in text_vocabularies(source).items():
        work = epath.Path(folder / "pieces")
        work.mkdir(exist_ok=True)
        pieces.make(source, vocabulary, work, 0)  # loads the model and the files
        began = time.process_time()
        made = [pieces.make(source, vocabulary, work, shard) for shard in range(source.n_shards)]
        seconds = time.process_time() - began
        n_bytes, tokens = (sum(sum(getattr(p, of).values()) for p in made) for of in ("bytes", "tokens"))
        table.add_row(name, f"{n_bytes / 1e6 / seconds:.1f}", f"{tokens / seconds:,.0f}", f"{n_bytes / tokens:.2f}")
    return table


def text_vocabularies(source: PythonLibrary) -> dict[str, TextVocabulary]:
    texts = [d.text for shard in range(source.n_shards) for d in source.documents(shard, lambda reason: None)]
    bpe = {f"bpe:{n}": SentencePieceVocabulary(vocabularies.train_bpe(n, texts), "bpe") for n in (1024, 16_384)}
    return {"byte": ByteVocabulary(), **bpe, "tokenizer.json, 16,384": byte_level_bpe(16_384, texts)}


def byte_level_bpe(size: int, texts: list[str]) -> TokenizerJson:
    """A tokenizer of GPT-2's kind."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TokenizerJson(tokenizer.to_str().encode(), "trained here")


def reading(folder: Path) -> Table:
    table = Table("tokens", "open, ms", "first, ms", "median, ms", title="1,000 random windows of 257 tokens")
    for tokens in (10**7, 10**8, 10**9, 10**10):
        path = folder / f"sparse{tokens}"
        sparse_store(path, tokens)
        opening, store = timed(lambda path=path: open_store(str(path)))
        times = window_times(store, repeats=30)
        table.add_row(f"{tokens:.0e}", f"{opening:.1f}", f"{times[0]:.1f}", f"{np.median(times[5:]):.1f}")
    return table


def window_times(store: Store, repeats: int) -> list[float]:
    """Milliseconds to read 1,000 random windows of 257 tokens, in turn at other places."""
    rng, last = np.random.default_rng(0), store.info.tokens["train"] - 257
    places = [rng.integers(0, last, 1000) for _ in range(repeats)]
    return [timed(lambda p=p: store.windows("train", p, 257))[0] for p in places]


def batching(folder: Path) -> Table:
    table = Table(
        "sequences × length", "ms a batch", "tokens/s", "waited, of a 20 ms step", title="batches of 1e10 tokens"
    )
    store = open_store(str(folder / f"sparse{10**10}"))
    for sequences, length in ((32, 64), (256, 256), (1024, 1024)):
        batches = Batches(store, length, sequences, seed=0)
        for step in range(20):  # until the indices of most shards are cached
            batches.batch(step)
        # Small batches are read several steps at once: only a mean over many counts them all.
        ms = float(np.mean([timed(lambda s=s, b=batches: b.batch(s))[0] for s in range(20, 84)]))
        times = Times({})
        with Prefetcher(batches.batch, 84, 124, lambda t=times: t.spent_on("data")) as prefetcher:
            for _ in prefetcher:
                time.sleep(0.02)
        per_second = sequences * length / ms * 1e3
        waited = times.seconds["data"] / (40 * 0.02 + times.seconds["data"])
        table.add_row(f"{sequences} × {length}", f"{ms:.1f}", f"{per_second:,.0f}", f"{waited:.1%}")
    return table


def sparse_store(path: Path, tokens: int) -> None:
    """A store of so many tokens in little space: every chunk of shard k is full of the token k mod 256 + 3."""
    shard_chunks = SHARD_TOKENS // CHUNK_TOKENS
    index_bytes = shard_chunks * 16 + 4  # where and how long each chunk is, and a checksum
    for split, n in {"train": tokens, "heldout": CHUNK_TOKENS}.items():
        chunk_of = Path(path, "chunk", split)
        template = store_lib.create_array(epath.Path(chunk_of.parent), split, CHUNK_TOKENS, np.dtype(np.uint16))
        store_lib.create_array(epath.Path(path), split, n, np.dtype(np.uint16))
        shards = Path(path, split, "c")
        shards.mkdir(exist_ok=True)
        for k in range(store_lib.n_shards(n)):
            template.write(np.full(CHUNK_TOKENS, k % 256 + 3, np.uint16)).result()
            encoded = (chunk_of / "c" / "0").read_bytes()
            chunk = encoded[index_bytes:]
            index = struct.pack("<QQ", index_bytes, len(chunk)) * shard_chunks
            (shards / str(k)).write_bytes(index + struct.pack("<I", crc32c(index)) + chunk)
    counts = {"train": tokens, "heldout": CHUNK_TOKENS}
    vocabulary = ByteVocabulary()
    info = store_lib.StoreInfo(
        tokens=counts, bytes=counts, token_bytes=counts, documents=dict.fromkeys(counts, 1), skipped={},
        vocabulary_size=vocabulary.size, end_of_document=vocabulary.end_of_document, vocabulary=vocabulary.describe(),
        byte_lengths=tuple(vocabulary.byte_lengths().tolist()), source={"name": "sparse"}, settings={}, sha256="0" * 64,
    )  # fmt: skip
    store_lib.write_info(epath.Path(path), info)


def crc32c(data: bytes) -> int:
    """The checksum as TensorStore's own codec writes it."""
    metadata = {"shape": [len(data)], "data_type": "uint8", "codecs": [{"name": "bytes"}, {"name": "crc32c"}]}
    array = ts.open({"driver": "zarr3", "kvstore": "memory://", "metadata": metadata}, create=True).result()
    array.write(np.frombuffer(data, np.uint8)).result()
    return struct.unpack("<I", array.kvstore.read("c/0").result().value[-4:])[0]


def timed(function: Callable):
    """(milliseconds, what the function gives)."""
    began = time.perf_counter()
    result = function()
    return (time.perf_counter() - began) * 1e3, result


if __name__ == "__main__":
    main()
