"""Damages to a file: to its bytes, to what stands at its path, to each of its values, and to who may read it."""

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_VALUES = {
    "null": None, "text": "seven", "list": [1], "object": {"a": 1}, "-1": -1, "1e308": 1e308, "NaN": math.nan,
    "true": True, "4e9": 4e9,
}  # fmt: skip

GONE = "gone"  # the damage that removes the file


@dataclasses.dataclass(frozen=True)
class Damage:
    """A change of one file; `apply` gets its path. The file may be a hard link, so it is replaced, not written to."""

    name: str
    apply: Callable[[Path], None]
    hides: bool = False  # nobody may read the file while the verb runs


def damages(path: Path, others: Mapping[str, Path], most: int) -> list[Damage]:
    """At most `most` damages to the file at `path`, evenly drawn: to the whole file, and to each of its values.
    `others` are sound files of the same kind, that are another's."""
    whole, values = list(_damaged_files(path, others)), list(_damages_inside(path))
    drawn = _evenly(whole, max(most // 2, most - len(values)))
    return [*drawn, *_evenly(values, most - len(drawn))]


def _evenly(every: Sequence[Damage], most: int) -> Sequence[Damage]:
    return every[:: math.ceil(len(every) / most)] if every else every


def _damaged_files(path: Path, others: Mapping[str, Path], bits: int = 3) -> Iterator[Damage]:
    data = path.read_bytes()
    yield from _damaged_bytes(data, bits)
    yield from _damaged_inodes()
    yield Damage("unreadable", lambda path: None, hides=True)
    for name, other in others.items():
        yield Damage(name, _replace_by(other.read_bytes()))


def _damages_inside(path: Path) -> Iterator[Damage]:
    data = path.read_bytes()
    if path.suffix == ".json":
        yield from _damaged_values(json.loads(data))
    elif path.suffix == ".csv":
        yield from _damaged_cells(data.decode())


def _damaged_bytes(data: bytes, bits: int) -> Iterator[Damage]:
    contents = {
        "first half": data[: len(data) // 2], "without its last byte": data[:-1], "empty": b"",
        "zeros": bytes(len(data)), "{}": b"{}", "[]": b"[]", "deep nesting": b"[" * 100_000,
        "deep object": b'{"a":' * 100_000, "not UTF-8": b"\xff\xfe" + data, "twice": data + data,
    }  # fmt: skip
    for at in range(1, bits + 1):
        where, flipped = len(data) * at // (bits + 1), bytearray(data)
        flipped[where] ^= 1 << (at % 7)
        contents[f"a flipped bit in byte {where}"] = bytes(flipped)
    for name, content in contents.items():
        yield Damage(name, _replace_by(content))


def _replace_by(content: bytes) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.unlink()
        path.write_bytes(content)

    return apply


def _damaged_inodes() -> Iterator[Damage]:
    def in_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
        def apply(path: Path) -> None:
            path.unlink()
            make(path)

        return apply

    yield Damage(GONE, in_place(lambda path: None))
    yield Damage("a folder", in_place(lambda path: path.mkdir()))
    yield Damage("a dead link", in_place(lambda path: path.symlink_to("nowhere")))
    yield Damage("a link to itself", in_place(lambda path: path.symlink_to(path.name)))
    yield Damage("a FIFO", in_place(os.mkfifo))


def _damaged_values(value: dict[str, Any]) -> Iterator[Damage]:
    """Each leaf with each wrong value, and each of the outer fields missing; a list's first element stands for all."""
    for leaf in _leaves(value):
        for name, wrong in _VALUES.items():
            changed = json.dumps(_with(value, leaf, wrong)).encode()
            yield Damage(f"{'.'.join(map(str, leaf))} is {name}", _replace_by(changed))
    for field in value:
        without = json.dumps({k: v for k, v in value.items() if k != field}).encode()
        yield Damage(f"no {field}", _replace_by(without))


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    if path:
        yield path
    for key, item in inner:
        yield from _leaves(item, (*path, key))


def _with(value: Any, path: tuple[Any, ...], wrong: Any) -> Any:
    if not path:
        return wrong
    copy = value.copy()
    copy[path[0]] = _with(value[path[0]], path[1:], wrong)
    return copy


def _damaged_cells(table: str) -> Iterator[Damage]:
    """Each column of the first row with each wrong value."""
    header, first, *others = list(csv.reader(io.StringIO(table)))
    for i, column in enumerate(header):
        for wrong in ("", "seven", "-1", "nan", "1e308"):
            out = io.StringIO()
            csv.writer(out, lineterminator="\n").writerows([header, [*first[:i], wrong, *first[i + 1 :]], *others])
            yield Damage(f"{column} is {wrong!r}", _replace_by(out.getvalue().encode()))
