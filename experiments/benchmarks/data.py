"""Speed of tokenising, and of reading batches:  python -m experiments.benchmarks.data  (about a minute)

Tokenising is measured on Python's standard library in one process, in seconds of CPU time. Reading is measured on
stores of 1e7 to 1e10 tokens. Their shards are real files with real indices, but all chunks of a shard share one place
in its file, so that 44 MB stand for 20 GB.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from etils import epath
from rich.console import Console
from rich.table import Table

from moe_jax.data.batches import Batches
from moe_jax.data.prefetch import Prefetcher
from moe_jax.data.prepare import pieces
from moe_jax.data.prepare.corpus import PythonLibrary
from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary, train_bpe
from moe_jax.data.store import open_store
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary, TextVocabulary
from moe_jax.training.metrics import Times
from tests.sparse_store import sparse_store, timed, window_times


def main() -> None:
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        console.print(tokenising(Path(folder)), reading(Path(folder)), batching(Path(folder)))


def tokenising(folder: Path) -> Table:
    table = Table(
        "vocabulary", "MB/s of text per core", "tokens/s per core", "bytes per token", title="prepare: tokenising"
    )
    source = PythonLibrary(seed=0)
    for name, vocabulary in text_vocabularies(source).items():
        work = epath.Path(folder / "pieces")
        work.mkdir(exist_ok=True)
        pieces.make(source, vocabulary, work, 0)  # loads the model and the files
        began = time.process_time()
        made = [pieces.make(source, vocabulary, work, shard) for shard in range(source.n_shards)]
        seconds = time.process_time() - began
        n_bytes, tokens = (sum(sum(getattr(p, count).values()) for p in made) for count in ("bytes", "tokens"))
        table.add_row(name, f"{n_bytes / 1e6 / seconds:.1f}", f"{tokens / seconds:,.0f}", f"{n_bytes / tokens:.2f}")
    return table


def text_vocabularies(source: PythonLibrary) -> dict[str, TextVocabulary]:
    texts = [d.text for shard in range(source.n_shards) for d in source.documents(shard, lambda reason: None)]
    bpe = {f"bpe:{n}": SentencePieceVocabulary(train_bpe(n, texts), "bpe") for n in (1024, 16_384)}
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


def batching(folder: Path) -> Table:
    table = Table(
        "sequences × length", "ms per batch", "tokens/s", "waited, of a 20 ms step", title="batches of 1e10 tokens"
    )
    store = open_store(str(folder / f"sparse{10**10}"))
    for sequences, length in ((32, 64), (256, 256), (1024, 1024)):
        batches = Batches(store, length, sequences, seed=0)
        for step in range(20):  # until the indices of most shards are cached
            batches.batch(step)
        # A mean, not a median: small batches are read several steps at once.
        ms = float(np.mean([timed(lambda s=s, b=batches: b.batch(s))[0] for s in range(20, 84)]))
        times = Times({})
        with Prefetcher(batches.batch, 84, 124, lambda t=times: t.spent_on("data")) as prefetcher:
            for _ in prefetcher:
                time.sleep(0.02)
        per_second = sequences * length / ms * 1e3
        waited = times.seconds["data"] / (40 * 0.02 + times.seconds["data"])
        table.add_row(f"{sequences} × {length}", f"{ms:.1f}", f"{per_second:,.0f}", f"{waited:.1%}")
    return table


if __name__ == "__main__":
    main()
