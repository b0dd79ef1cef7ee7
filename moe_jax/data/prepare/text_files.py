"""Files of text, JSON records and tables, plain or compressed, as a source.

- `.jsonl`, `.json`, `.ndjson`: each line is a JSON object whose field (`text`, or `--text_field`) is a document. Blank
  lines are ignored. Skipped and counted: lines that are not UTF-8, not JSON objects, nested too deeply, without a text
  in the field or with an empty one, above 64 MiB, or whose text has a NUL character. A file that is an array of such
  objects, or objects of several lines, is read as well.
- `.csv`, `.tsv`, `.parquet`, `.arrow`: each row is a document, the text of the column of that name. Skipped and counted
  is the same, and rows of CSV and TSV with another number of fields than the header.
- Other files are text, cut at line ends into documents of at most 64 KiB (a longer line is cut between characters).
  Skipped and counted: documents that are not UTF-8 or have a NUL character.
- UTF-16 and UTF-32 are known by their byte order mark. `.gz` and `.zst` are decompressed in bounded memory.
- A file that cannot be read, is binary, ends too early, or decompresses to more than 250 times its size stops `prepare`
  with a sentence that names it: only the user may decide to leave it out.

Which files are read says `listing`. One document in a hundred is held out, by a keyed hash of its file and place in it,
unless the files themselves are split (C4). If that holds out none, `prepare` holds out the first.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from moe_jax.data.prepare import kinds, listing, streams
from moe_jax.data.prepare.documents import json_documents, text_documents
from moe_jax.data.prepare.json_values import json_value_documents
from moe_jax.data.prepare.sources import HELDOUT_FRACTION, Document, keyed_fraction
from moe_jax.data.prepare.tables import table_documents

_C4_SPLITS = {"train": "train", "heldout": "validation"}  # ours: theirs


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """The documents of `patterns`: for each split a folder (all files below it that hold text), a file or a glob, local
    or gs://. The documents of the key None are split 99:1.

    Its methods raise UserError if there are no files, or one cannot be read."""

    name: str
    patterns: dict[str | None, str]
    seed: int
    text_field: str = "text"
    left_out: str | None = None  # the store's own folder, which may lie among the files
    follow_links: bool = False  # it permits links, and changes nothing of what is read without them
    vocabulary = None

    @functools.cached_property
    def _listed(self) -> tuple[list[listing.Part], dict[str, int]]:
        return listing.parts(self.patterns, listing.Rules(self.text_field, self.left_out, self.follow_links))

    @property
    def _parts(self) -> list[listing.Part]:
        return self._listed[0]

    @property
    def held_out_by_chance(self) -> bool:
        """As Source: whether some files are not split by their names."""
        return None in self.patterns

    @property
    def skipped_files(self) -> dict[str, int]:
        """As Source: files of a folder whose endings are not those of text."""
        return self._listed[1]

    @property
    def n_shards(self) -> int:
        """As Source."""
        return len(self._parts)

    def fingerprint(self, shard: int) -> str:
        """As Source; a changed size or time of the file changes it."""
        return hashlib.sha256(repr((self._parts[shard], self.text_field, self.seed)).encode()).hexdigest()

    def documents(self, shard: int, skip: Callable[[str], None]) -> Iterator[Document]:
        """As Source."""
        part = self._parts[shard]
        for place, text in _texts(part, skip, self.text_field):
            held_out = keyed_fraction(f"{part.key}:{place}", self.seed) < HELDOUT_FRACTION
            yield Document(part.split or ("heldout" if held_out else "train"), text)

    def describe(self) -> dict[str, Any]:
        """As Source."""
        found = sorted({(p.key, p.size) for p in self._parts})
        digest = hashlib.sha256(repr(found).encode()).hexdigest()
        return {"name": self.name, "files": len(found), "bytes": sum(n for _, n in found), "listing_sha256": digest}


def _texts(part: listing.Part, skip: Callable[[str], None], field: str) -> Iterator[tuple[int, str]]:
    """(place in the file, text) of each document of the shard."""
    if part.kind.format in kinds.TABLES:
        yield from table_documents(part.path, part.kind, skip, field)
        return
    with streams.open_lines(part.path, part.start, part.kind.encoding) as lines:
        if part.kind.format is kinds.Format.JSON_LINES:
            yield from json_documents(lines, part.end, skip, field)
        elif part.kind.format is kinds.Format.JSON_VALUES:
            yield from json_value_documents(lines, skip, field)
        else:
            yield from text_documents(lines, part.end, skip)


def c4(folder: str, seed: int, follow_links: bool = False) -> TextFiles:
    """C4 in its published JSONL files below `folder`: c4-train.*.json.gz, and c4-validation.*.json.gz held out."""
    patterns = {split: f"{folder.rstrip('/')}/c4-{theirs}.*" for split, theirs in _C4_SPLITS.items()}
    return TextFiles(f"c4:{folder}", patterns, seed, follow_links=follow_links)
