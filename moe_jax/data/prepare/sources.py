"""Sources of documents: a source is a list of shards, a shard is a stream of documents in a fixed order."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from moe_jax.data.vocabularies import Vocabulary

HELDOUT_FRACTION = 0.01  # where the source has no held-out part of its own


@dataclasses.dataclass(frozen=True)
class Document:
    """A text, or token ids [n] and the bytes of each if the source has its own vocabulary."""

    split: str  # one of store.SPLITS
    text: str | None
    tokens: np.ndarray | None = None
    token_bytes: np.ndarray | None = None


class Source(Protocol):
    """A source of documents. All it gives depends on its content alone. Instances can be pickled, for the workers."""

    name: str
    vocabulary: Vocabulary | None  # of documents that are token ids; None if they are texts
    held_out_by_chance: bool  # each document by itself, so that of few documents none may be

    @property
    def skipped_files(self) -> dict[str, int]:
        """How many files hold no documents and lie among those that do, by reason."""

    @property
    def n_shards(self) -> int:
        """The number of shards: a worker takes one at a time, and the store keeps their order."""

    def fingerprint(self, shard: int) -> str:
        """Changes when the shard's content does, so that the shard is prepared again."""

    def documents(self, shard: int, skip: Callable[[str], None]) -> Iterator[Document]:
        """The shard's documents in order; calls skip(reason) for each that it leaves out.

        Raises UserError if the shard cannot be read."""

    def describe(self) -> dict[str, Any]:
        """The entry `source` of `store.json`."""


def reasons(skipped: Mapping[str, int]) -> str:
    """What was left out, in words: 2 no text in text, 1 not JSON."""
    return ", ".join(f"{n:,} {reason}" for reason, n in skipped.items())


def keyed_fraction(key: str, seed: int) -> float:
    """A number in [0, 1), uniform over keys; the same for (key, seed) on every machine and Python version."""
    secret = seed.to_bytes(8, "little", signed=True)
    name = key.encode(errors="surrogateescape")  # file names need not be UTF-8
    digest = hashlib.blake2b(name, digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "little") / 2**64
