"""The files of a source -> its shards: what is found at a folder, a file or a glob, local or gs://.

- Of a folder all files below it with a known ending (`kinds.ENDINGS`) are read, in capitals too. Files with other
  endings are left out and counted; hidden ones (`.name`, `_name`, as Spark and Hugging Face write) are not counted.
- A file or a glob says exactly what is read: files with other endings are text.
- A file that links give several names is read once, under the first name. A link that leads out of the folder is
  refused unless links may be followed; then each folder that they lead to is read once.
- Plain text and JSONL files above 64 MiB are several shards, so that one long file keeps all workers busy.
"""

import collections
import dataclasses
import os
import stat as stat_modes
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from etils import epath
from etils.epath import stat_utils

from moe_jax import files
from moe_jax.data.prepare import kinds, streams, tables
from moe_jax.errors import UserError

RANGE_BYTES = 2**26  # of a plain file in one shard
_THREADS = 16  # that look at files at once: an object store takes its time
_ENDINGS_NAMED = 5  # of files left out; the others are counted together


@dataclasses.dataclass(frozen=True)
class Part:
    """A shard: the documents that begin in bytes [start, end) of a file, or all of a file that cannot be cut."""

    path: epath.Path
    key: str  # the path below the source's folder, the same on every machine
    kind: kinds.Kind
    size: int  # bytes
    modified: float  # seconds since 1970
    start: int
    end: int
    split: str | None  # None: each document by itself


@dataclasses.dataclass(frozen=True)
class Rules:
    """What may be read, and how."""

    text_field: str
    left_out: str | None  # the store's own folder, which may lie among the files
    follow_links: bool


@dataclasses.dataclass
class _Found:
    root: epath.Path  # which the files' keys are relative to
    read: list[epath.Path]
    left_out: list[epath.Path] = dataclasses.field(default_factory=list)


def parts(patterns: Mapping[str | None, str], rules: Rules) -> tuple[list[Part], dict[str, int]]:
    """The shards of the files at the pattern of each split, and how many files are left out, by reason.

    Raises UserError if there are none at a pattern, or if one cannot be read or is not what its name says."""
    made: list[Part] = []
    endings: collections.Counter[str] = collections.Counter()
    for split, pattern in patterns.items():
        found = _find(pattern, rules.follow_links)
        for path in _chosen(found.left_out, rules.left_out):
            if not path.name.startswith(("_", ".")):
                endings[kinds.ending(path)] += 1
        chosen = _chosen(found.read, rules.left_out)
        if not chosen:
            raise UserError(
                f"there are no text files at {pattern}; their names end in {', '.join(kinds.ENDINGS)}, and in .gz or "
                ".zst if they are compressed"
            )
        with ThreadPoolExecutor(_THREADS) as pool:
            looked = pool.map(lambda path: _look(path, rules.text_field), chosen)
            for path, (kind, stat) in zip(chosen, looked, strict=True):
                made += _parts(found.root, path, kind, stat, split)
    named = endings.most_common(_ENDINGS_NAMED)
    reasons = {f"{ending} file" if ending else "file without ending": n for ending, n in named}
    others = endings.total() - sum(reasons.values())
    return made, reasons | ({"file of another ending": others} if others else {})


def _chosen(found: Iterable[epath.Path], left_out: str | None) -> list[epath.Path]:
    """The files, each once, without those in the folder `left_out`."""
    paths = {_real(path): path for path in sorted(found, key=os.fspath, reverse=True)}  # a file's first name wins
    own = _real(epath.Path(left_out)) + "/" if left_out else None
    return sorted((path for real, path in paths.items() if not own or not real.startswith(own)), key=os.fspath)


def _look(path: epath.Path, text_field: str) -> tuple[kinds.Kind, stat_utils.StatResult]:
    stat = _stat(path)
    if not stat.length and streams.compression(path):
        raise UserError(f"{path} is damaged: it is empty, where a compressed file has a header")
    kind = kinds.kind_of(path)
    if kind.format in kinds.TABLES:
        tables.check_column(path, kind, text_field)
    return kind, stat


def _parts(
    root: epath.Path, path: epath.Path, kind: kinds.Kind, stat: stat_utils.StatResult, split: str | None
) -> Iterator[Part]:
    whole = streams.compression(path) or not kind.has_free_lines
    step = stat.length if whole else RANGE_BYTES
    key = os.fspath(path).removeprefix(os.fspath(root)).lstrip("/")
    for start in range(0, stat.length, step or 1):
        end = start + step if start + step < stat.length else 2**63
        yield Part(path, key, kind, stat.length, stat.mtime, start, end, split)


def _stat(path: epath.Path) -> stat_utils.StatResult:
    try:
        stat = path.stat()
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}") from e
    if stat.mode is not None and not stat_modes.S_ISREG(stat.mode):
        raise UserError(f"{path} cannot be read: it is a pipe or a device, not a file")
    return stat


def _find(pattern: str, follow_links: bool) -> _Found:
    if "**" in pattern:
        raise UserError(f"{pattern}: ** is not allowed in a glob; name the folder above, which is read whole")
    path = epath.Path(pattern)
    try:
        if path.is_dir():
            found = _Found(path, [])
            for file in _walk(path, set(), None if follow_links else path):
                (found.read if kinds.ending(file) in kinds.ENDINGS else found.left_out).append(file)
        elif "*" not in pattern and "?" not in pattern:
            return _Found(path.parent, [path] if path.exists() or os.path.islink(path) else [])
        else:
            fixed = next(p for p in path.parents if "*" not in os.fspath(p) and "?" not in os.fspath(p))
            names = fixed.glob(os.fspath(path)[len(os.fspath(fixed)) :].lstrip("/"))
            found = _Found(fixed, sorted((p for p in names if not p.is_dir()), key=os.fspath))
        for file in found.read if not follow_links else ():
            _refuse_outside(file, found.root)
        return found
    except OSError as e:
        raise UserError(f"{pattern} cannot be listed: {e.strerror or e}") from e


def _walk(folder: epath.Path, walked: set[str], within: epath.Path | None) -> Iterator[epath.Path]:
    """The files below the folder; each folder is read once, so that a link to one above it does not go on for ever.

    Raises UserError at a link to a folder that does not lie `within` (None: links lead anywhere)."""
    walked.add(_real(folder))
    for path in sorted(folder.iterdir(), key=os.fspath):
        if not path.is_dir():
            yield path
        elif _real(path) not in walked:
            if within is not None:
                _refuse_outside(path, within)
            yield from _walk(path, walked, within)


def _refuse_outside(path: epath.Path, root: epath.Path) -> None:
    """Raises UserError if links on the way to the path lead out of the folder `root`."""
    real = _real(path)
    if not real.startswith(_real(root).rstrip("/") + "/"):
        raise UserError(
            f"{path} is a symbolic link out of {root}, to {real}; give --follow_links to read what such links lead to "
            "(a Hugging Face cache is made of them), or remove the link"
        )


def _real(path: epath.Path) -> str:
    """The path with links resolved: the same for all names of a file."""
    name = os.fspath(path)
    return name if files.is_remote(name) else os.path.realpath(name)
