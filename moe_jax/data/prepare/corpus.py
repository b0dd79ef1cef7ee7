"""The embedded corpus: Python's own standard library, real text that every machine with Python has.

A document is a `.py` file below the library's folder, outside installed packages and tests. About 12 MB; the content
depends on the Python version, which `store.json` records.
"""

import dataclasses
import functools
import hashlib
import os
import platform
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from moe_jax.data.prepare.sources import HELDOUT_FRACTION, Document, keyed_fraction
from moe_jax.errors import UserError

NAME = "python_stdlib"
# Folders left out: installed packages, and tests, which hold odd encodings and repeat what they test.
_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
_SHARDS = 16


@dataclasses.dataclass(frozen=True)
class PythonLibrary:
    """The `.py` files below `root`, in order of their paths.

    Its methods raise UserError if a file cannot be read."""

    seed: int
    root: str = dataclasses.field(default_factory=lambda: sysconfig.get_path("stdlib"))
    name: str = NAME
    vocabulary = None
    held_out_by_chance = False
    skipped_files = {}  # noqa: RUF012

    @functools.cached_property
    def _files(self) -> list[str]:
        """Paths below the root, sorted; in the same order on every machine, as "/" separates their parts everywhere."""
        found = []
        for folder, folders, names in os.walk(self.root, onerror=_unreadable):
            folders[:] = [f for f in folders if f not in _LEFT_OUT]
            found += [Path(folder, n).relative_to(self.root).as_posix() for n in names if n.endswith(".py")]
        return sorted(found)

    @functools.cached_property
    def _held_out(self) -> frozenset[str]:
        """Whole files, in the order of a keyed hash of their paths, until they have 1% of the bytes."""
        sizes = {f: os.path.getsize(os.path.join(self.root, f)) for f in self._files}
        wanted, chosen = HELDOUT_FRACTION * sum(sizes.values()), []
        for file in sorted(sizes, key=lambda f: keyed_fraction(f, self.seed)):
            if sum(sizes[c] for c in chosen) >= wanted:
                break
            chosen.append(file)
        return frozenset(chosen)

    @property
    def n_shards(self) -> int:
        """As Source."""
        return min(_SHARDS, len(self._files))

    def _files_of(self, shard: int) -> list[str]:
        n = len(self._files)
        return self._files[n * shard // self.n_shards : n * (shard + 1) // self.n_shards]

    def fingerprint(self, shard: int) -> str:
        """As Source; a changed size or time of a file changes it."""
        stats = [(f, os.stat(os.path.join(self.root, f))) for f in self._files_of(shard)]
        listing = [(f, s.st_size, s.st_mtime_ns, f in self._held_out) for f, s in stats]
        return hashlib.sha256(repr(listing).encode()).hexdigest()

    def documents(self, shard: int, skip: Callable[[str], None]) -> Iterator[Document]:
        """As Source; a file that is not UTF-8 is skipped ("not UTF-8")."""
        for file in self._files_of(shard):
            try:
                text = Path(self.root, file).read_bytes().decode()
            except UnicodeDecodeError:
                skip("not UTF-8")
                continue
            except OSError as e:
                _unreadable(e)
            yield Document("heldout" if file in self._held_out else "train", text)

    def describe(self) -> dict[str, Any]:
        """As Source."""
        return {"name": self.name, "python": platform.python_version(), "files": len(self._files)}


def _unreadable(e: OSError) -> None:
    raise UserError(f"the embedded corpus cannot be read: {e.strerror} at {e.filename}") from e
