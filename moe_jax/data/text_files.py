"""Text and JSONL files, plain or compressed, as a source.

What becomes a document, and what becomes of the rest:

- `.jsonl`, `.json`, `.ndjson`: a line is a JSON object whose field (`text`, or `--text_field`) is a document. Blank
  lines are nothing. Skipped and counted: lines that are not UTF-8, not JSON objects, without a text in the field or
  with an empty one, above 64 MiB, or whose text has a NUL character.
- other files are text, cut after line ends into documents of at most 64 KiB (a longer line is cut between
  characters). Skipped and counted: documents that are not UTF-8 or have a NUL character, as binary files do.
- endings count in any case: A.TXT is text.
- `.gz` and `.zst` are opened in bounded memory. A file that cannot be read, ends too early, or opens out more than 250
  times its size stops `prepare` with a sentence that names it: to leave out whole files is the user's decision.
- a file that links give several names is read once, under the first of them.
- plain files above 64 MiB are several shards, so that one long file keeps all workers busy.

One document in a hundred is held out, by a keyed hash of its place, unless the files say themselves which (C4). Where
that is none, `prepare` holds out the first.
"""

import dataclasses
import functools
import hashlib
import json
import os
import stat as stat_modes
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath
from etils.epath import stat_utils

from moe_jax.data import streams
from moe_jax.data.sources import HELDOUT_FRACTION, Document, keyed_fraction
from moe_jax.errors import UserError

JSON_SUFFIXES = (".jsonl", ".json", ".ndjson")
TEXT_SUFFIXES = (".txt", ".text", ".md")
MAX_LINE = 2**26
MAX_BLOCK = 2**16
RANGE_BYTES = 2**26


@dataclasses.dataclass(frozen=True)
class Part:
    """What begins in bytes [start, end) of a file; the whole file where it is compressed."""

    path: epath.Path
    key: str  # the path below the source's folder: names a document's place on any machine
    size: int
    modified: float
    start: int
    end: int
    split: str | None  # None: by document


@dataclasses.dataclass(frozen=True)
class TextFiles:
    """Documents of `patterns`, for each split a folder (all its text and JSONL files), a file or a glob, local or gs://.

    The key None stands for files whose documents are split 99:1. Raises UserError where there are none, or one cannot
    be read.
    """

    name: str
    patterns: dict[str | None, str]
    seed: int
    text_field: str = "text"
    left_out: str | None = None  # the folder of the store that is made of them, which may lie among them
    vocabulary = None

    @functools.cached_property
    def _parts(self) -> list[Part]:
        return [part for split, pattern in self.patterns.items() for part in _parts(pattern, split, self.left_out)]

    @property
    def held_out_by_chance(self) -> bool:
        return None in self.patterns

    @property
    def n_shards(self) -> int:
        return len(self._parts)

    def fingerprint(self, shard: int) -> str:
        return hashlib.sha256(repr((self._parts[shard], self.text_field, self.seed)).encode()).hexdigest()

    def documents(self, shard: int, skip: Callable[[str], None]) -> Iterator[Document]:
        part = self._parts[shard]
        read = _json_documents if _suffix(part.path) in JSON_SUFFIXES else _text_documents
        with streams.open_lines(part.path, part.start) as lines:
            for offset, text in read(lines, part.end, skip, self.text_field):
                held_out = keyed_fraction(f"{part.key}:{offset}", self.seed) < HELDOUT_FRACTION
                yield Document(part.split or ("heldout" if held_out else "train"), text)

    def describe(self) -> dict[str, Any]:
        listing = sorted({(p.key, p.size) for p in self._parts})
        digest = hashlib.sha256(repr(listing).encode()).hexdigest()
        return {"name": self.name, "files": len(listing), "bytes": sum(n for _, n in listing), "listing_sha256": digest}


def c4(folder: str, seed: int) -> TextFiles:
    """C4 as it is published in JSONL: c4-train.*.json.gz, and c4-validation.*.json.gz held out."""
    patterns = {split: f"{folder.rstrip('/')}/c4-{theirs}.*" for split, theirs in _C4_SPLITS.items()}
    return TextFiles(f"c4:{folder}", patterns, seed)


_C4_SPLITS = {"train": "train", "heldout": "validation"}


def _parts(pattern: str, split: str | None, left_out: str | None) -> Iterator[Part]:
    root, found = _find(pattern)
    paths = {_real(path): path for path in sorted(found, key=os.fspath, reverse=True)}  # of two names the first
    if left_out:
        own = _real(epath.Path(left_out)) + "/"
        paths = {real: path for real, path in paths.items() if not real.startswith(own)}
    if not paths:
        raise UserError(
            f"there are no text files at {pattern} ({', '.join(TEXT_SUFFIXES + JSON_SUFFIXES)}, and .gz, .zst)"
        )
    for path in sorted(paths.values(), key=os.fspath):
        stat = _stat(path)
        step = stat.length if streams.compression(path) else RANGE_BYTES
        if not step:
            raise UserError(f"{path} is damaged: it is empty, where a compressed file has a header")
        for start in range(0, stat.length, step):
            end = start + step if start + step < stat.length else 2**63
            key = os.fspath(path).removeprefix(os.fspath(root)).lstrip("/")
            yield Part(path, key, stat.length, stat.mtime, start, end, split)


def _stat(path: epath.Path) -> stat_utils.StatResult:
    try:
        stat = path.stat()
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}") from e
    if stat.mode is not None and not stat_modes.S_ISREG(stat.mode):
        raise UserError(f"{path} cannot be read: it is a pipe or a device, not a file")
    return stat


def _find(pattern: str) -> tuple[epath.Path, list[epath.Path]]:
    """The folder that documents' places are named from, and the files."""
    if "**" in pattern:
        raise UserError(f"{pattern}: ** is no part of a glob here; name the folder above, which is read whole")
    path = epath.Path(pattern)
    try:
        if path.is_dir():
            return path, [p for p in _walk(path, set()) if _suffix(p) in TEXT_SUFFIXES + JSON_SUFFIXES]
        if "*" not in pattern and "?" not in pattern:
            return path.parent, [path] if path.exists() or os.path.islink(path) else []
        fixed = next(p for p in path.parents if "*" not in os.fspath(p) and "?" not in os.fspath(p))
        found = fixed.glob(os.fspath(path)[len(os.fspath(fixed)) :].lstrip("/"))
        return fixed, [p for p in found if not p.is_dir()]
    except OSError as e:
        raise UserError(f"{pattern} cannot be listed: {e.strerror or e}") from e


def _walk(folder: epath.Path, walked: set[str]) -> Iterator[epath.Path]:
    """The files below the folder; each folder once, so that links to one above do not go on for ever."""
    walked.add(_real(folder))
    for path in sorted(folder.iterdir(), key=os.fspath):
        if not path.is_dir():
            yield path
        elif _real(path) not in walked:
            yield from _walk(path, walked)


def _real(path: epath.Path) -> str:
    """Where links lead: the same for all names of a file."""
    name = os.fspath(path)
    return name if "://" in name else os.path.realpath(name)


def _suffix(path: epath.Path) -> str:
    """The ending that says what is in the file, below .gz and .zst."""
    return epath.Path(path.stem if streams.compression(path) else path.name).suffix.lower()


class _Unusable(Exception):
    """Why a document is skipped."""


def _json_documents(
    lines: streams.Lines, end: int, skip: Callable[[str], None], field: str
) -> Iterator[tuple[int, str]]:
    """(offset, text) of the documents whose lines begin before `end`."""
    while (offset := lines.offset) < end and (line := lines.read(MAX_LINE + 1)):
        if len(line) > MAX_LINE:
            lines.drop_rest(line)
            skip("line above 64 MiB")
        elif line.strip():
            try:
                text = _json_text(_without_mark(line, offset), field)
            except _Unusable as e:
                skip(str(e))
            else:
                yield offset, text


def _json_text(line: bytes, field: str) -> str:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        raise _Unusable("not UTF-8") from None
    except (ValueError, RecursionError):
        raise _Unusable("not JSON") from None
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
        raise _Unusable(f"no text in {field}")
    if not record[field]:
        raise _Unusable(f"empty {field}")
    try:
        record[field].encode()
    except UnicodeEncodeError:  # JSON can spell halves of surrogate pairs
        raise _Unusable("not UTF-8") from None
    return _checked(record[field])


def _text_documents(lines: streams.Lines, end: int, skip: Callable[[str], None], _: str) -> Iterator[tuple[int, str]]:
    """(offset, text) of blocks of whole lines that begin before `end`."""
    offset, block, in_line = lines.offset, b"", False
    while in_line or lines.offset < end:
        part = lines.read(MAX_BLOCK - len(block))
        in_line = part != b"" and not part.endswith(b"\n")
        block += part
        if part and len(block) < MAX_BLOCK:
            continue
        # The block is full, or the file is at its end.
        cut = len(block) if not in_line else block.rfind(b"\n") + 1 or _whole_characters(block)
        if cut:
            yield from _block_document(block[:cut], offset, skip)
        offset, block = offset + cut, block[cut:]
        if not part:
            return
    if block:
        yield from _block_document(block, offset, skip)


def _block_document(block: bytes, offset: int, skip: Callable[[str], None]) -> Iterator[tuple[int, str]]:
    try:
        yield offset, _checked(_without_mark(block, offset).decode())
    except UnicodeDecodeError:
        skip("not UTF-8")
    except _Unusable as e:
        skip(str(e))


def _checked(text: str) -> str:
    if "\0" in text:
        raise _Unusable("NUL character")
    return text


def _without_mark(data: bytes, offset: int) -> bytes:
    return data.removeprefix(b"\xef\xbb\xbf") if not offset else data


def _whole_characters(block: bytes) -> int:
    """The length of the block without the first bytes of a character that ends behind it."""
    for back in range(1, min(4, len(block)) + 1):
        if block[-back] & 0xC0 != 0x80:  # not a continuation byte
            needs = 1 + (block[-back] >= 0xC0) + (block[-back] >= 0xE0) + (block[-back] >= 0xF0)
            return len(block) if needs <= back else len(block) - back
    return len(block)
