"""What a file holds, by its first bytes and its ending: a name promises, the bytes decide.

Parquet and Arrow are known by their bytes whatever the file is called; text, JSON and CSV by the ending; UTF-16 and
UTF-32 by their byte order mark. Anything else that is not text is refused by name: read as text it would be noise, and
left out in silence it would be missed.
"""

import enum
import re
from typing import NamedTuple

from etils import epath

from moe_jax.data.prepare import streams
from moe_jax.errors import UserError


class Format(enum.StrEnum):
    """How a file's documents are told apart."""

    TEXT = "text"  # blocks of whole lines
    JSON_LINES = "JSON lines"
    JSON_VALUES = "JSON"  # an array of records, or records of several lines
    CSV = "CSV"
    TSV = "TSV"
    PARQUET = "Parquet"
    ARROW_FILE = "Arrow file"
    ARROW_STREAM = "Arrow stream"


class Kind(NamedTuple):
    """A file's format, and the encoding of its text: utf-8 (also with a byte order mark), utf-16 or utf-32."""

    format: Format
    encoding: str = "utf-8"

    @property
    def has_free_lines(self) -> bool:
        """Whether each line stands for itself, so that the file can be cut into shards."""
        return self.format in (Format.TEXT, Format.JSON_LINES) and self.encoding == "utf-8"


# What each ending promises; files with other endings are left out of a folder, and are text if they are named.
ENDINGS = {
    **dict.fromkeys((".txt", ".text", ".md"), Format.TEXT),
    **dict.fromkeys((".jsonl", ".json", ".ndjson"), Format.JSON_LINES),
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".parquet": Format.PARQUET,
    ".arrow": Format.ARROW_STREAM,
}
ARROW = (Format.PARQUET, Format.ARROW_FILE, Format.ARROW_STREAM)
TABLES = (Format.CSV, Format.TSV, *ARROW)

_HEAD = 2**13  # bytes that a kind is told from
_ARROW_MAGIC = {b"PAR1": Format.PARQUET, b"ARROW1\0\0": Format.ARROW_FILE, b"\xff\xff\xff\xff": Format.ARROW_STREAM}
_BYTE_ORDER_MARKS = {  # UTF-32's before UTF-16's, with which it begins
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_POINTER = b"version https://git-lfs.github.com/spec/"
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "Zstandard", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_BINARY = {  # what has NUL bytes near its beginning needs no entry; a name says more, though
    b"PK\x03\x04": "a zip archive (also .docx, .xlsx, .npz and PyTorch's .pt are)",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!\x1a\x07": "a RAR archive",
    b"%PDF-": "a PDF",
    b"\x89PNG\r\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF87a": "a GIF image",
    b"GIF89a": "a GIF image",
    b"\x7fELF": "a program",
    b"SQLite format 3\0": "an SQLite database",
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x93NUMPY": "a NumPy array",
    b"Obj\x01": "an Avro file",
    b"FEA1": "a Feather file of version 1",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"{\\rtf": "an RTF document",
    **{b"\x80" + bytes([protocol]): "a Python pickle" for protocol in range(2, 6)},
}
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*[{[]")
# An array, or an object that begins with a line of its own.
_JSON_VALUES = re.compile(r"\s*(\[|\{[ \t\r]*\n)")


def ending(path: epath.Path) -> str:
    """The ending in small letters, without .gz and .zst."""
    return epath.Path(path.stem if streams.compression(path) else path.name).suffix.lower()


def kind_of(path: epath.Path) -> Kind:
    """The file's kind. Raises UserError if it is not text, JSON, a table, or what its ending says, or is unreadable."""
    head = streams.head(path, _HEAD)
    promised = ENDINGS.get(ending(path), Format.TEXT)
    for magic, found in _ARROW_MAGIC.items():
        if head.startswith(magic):
            if streams.compression(path):
                raise UserError(f"{path} is a compressed {found}, which is read uncompressed only; unpack it")
            return Kind(found)
    if head.startswith(_POINTER):
        raise UserError(f"{path} is a Git LFS pointer, not the file that it stands for; fetch that with git lfs pull")
    if promised in ARROW:
        raise UserError(
            f"{path} is damaged, or not what its name says: it does not begin as Parquet or Arrow do, but with "
            f"{head[:8]!r}"
        )
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8")
    if encoding == "utf-8":
        _refuse_binary(path, head, promised)
    if promised is Format.JSON_LINES and _JSON_VALUES.match(head.decode(encoding, "replace").removeprefix("\ufeff")):
        promised = Format.JSON_VALUES
    return Kind(promised, encoding)


def _refuse_binary(path: epath.Path, head: bytes, promised: Format) -> None:
    for magic, packer in _PACKED.items():
        if head.startswith(magic):
            raise UserError(
                f"{path} is compressed with {packer}, which its name does not say; .gz and .zst are read by that "
                "ending: rename it, or unpack it"
            )
    names = [name for magic, name in _BINARY.items() if head.startswith(magic)]
    if head[257:262] == b"ustar":
        names = ["a tar archive"]
    if head[8:10] == b'{"' and b"\0" in head[:8]:
        names = ["a safetensors file"]
    if names:
        raise UserError(f"{path} is {names[0]}, not text; {_leave_out(path)}")
    if b"\0" in head and not (promised is Format.JSON_LINES and _JSON.match(head)):  # a broken line costs itself alone
        raise UserError(
            f"{path} is a binary file, or UTF-16 without a byte order mark: it has NUL bytes near its beginning; "
            f"save it as UTF-8, or {_leave_out(path)}"
        )


def _leave_out(path: epath.Path) -> str:
    return f"leave it out: move it elsewhere, or name the files to read with a glob such as {path.parent}/*.jsonl"
