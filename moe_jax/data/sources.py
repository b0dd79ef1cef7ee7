"""What `prepare` reads: a source is a list of shards, a shard is a stream of documents in a fixed order."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from moe_jax.data.vocabularies import Vocabulary

HELDOUT_FRACTION = 0.01


@dataclasses.dataclass(frozen=True)
class Document:
    """A text, or the token ids [n] of a source that has its own vocabulary."""

    split: str  # of store.SPLITS
    text: str | None
    tokens: np.ndarray | None = None


class Source(Protocol):
    """Instances go to other processes, so they pickle. Everything below depends on the source's content alone."""

    name: str
    vocabulary: Vocabulary | None  # of documents that are token ids already; None where they are texts
    held_out_by_chance: bool  # each document for itself, so that of a few documents it may be none

    @property
    def n_shards(self) -> int:
        """Units of work: what a worker takes at once, in the order of the store."""

    def fingerprint(self, shard: int) -> str:
        """Changes when the shard's content does; what was prepared from another content is done again."""

    def documents(self, shard: int, skip: Callable[[str], None]) -> Iterator[Document]:
        """The shard's documents in order; calls skip(reason) for each that it leaves out.

        Raises UserError where the shard cannot be read."""

    def describe(self) -> dict[str, Any]:
        """What `store.json` says of it."""


def keyed_fraction(key: str, seed: int) -> float:
    """A number in [0, 1), uniform over keys and fixed for (key, seed) on every machine and Python version."""
    secret = seed.to_bytes(8, "little", signed=True)
    name = key.encode(errors="surrogateescape")  # file names need not be UTF-8
    digest = hashlib.blake2b(name, digest_size=8, key=secret).digest()
    return int.from_bytes(digest, "little") / 2**64
