"""Small sources and stores for tests."""

import dataclasses
import hashlib
import sys

import numpy as np

from moe_jax.data.prepare import build, corpus
from moe_jax.data.prepare.sources import Document
from moe_jax.data.store import open_store


@dataclasses.dataclass(frozen=True)
class Texts:
    """A source whose shards are given: each a tuple of (split, text)."""

    shards: tuple
    name: str = "texts"
    held_out_by_chance: bool = False
    vocabulary = None
    skipped_files = {}  # noqa: RUF012

    @property
    def n_shards(self):
        return len(self.shards)

    def fingerprint(self, shard):
        return hashlib.sha256(repr(self.shards[shard]).encode()).hexdigest()

    def documents(self, shard, skip):
        for split, text in self.shards[shard]:
            yield Document(split, text)

    def describe(self):
        return {"name": self.name}


def words(seed, n_documents, n_words=40):
    """Documents of made-up words, the first of them held out."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz    "))
    texts = ["".join(letters[rng.integers(0, 30, n_words * 5)]) for _ in range(n_documents)]
    return tuple(("train" if i else "heldout", text) for i, text in enumerate(texts))


def make_store(path, source=None, vocabulary="byte", workers=1):
    """A store with the settings of configs/common.py, whatever the source."""
    source = source or Texts(tuple(words(s, 10) for s in range(3)))
    build.build(str(path), source, build.Settings(corpus.NAME, vocabulary, 0), workers)
    return open_store(str(path))


def contents(folder):
    """Relative path -> bytes of every file below the folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def byte_level(end="<|endoftext|>"):
    """A tokenizer of GPT-2's kind, trained on a few texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([text for _, text in words(0, 20)], trainer)
    return tokenizer


SOURCE = Texts(tuple(words(s, 10) for s in range(6)))
COMMAND = [sys.executable, "-m", "moe_jax", "prepare"]


class Killed(BaseException):
    """Stands for kill -9 at a chosen moment; no handler catches it."""


def killed(*_):
    raise Killed
