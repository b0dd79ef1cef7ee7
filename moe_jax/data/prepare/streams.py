"""The lines of a file as UTF-8, plain, .gz or .zst, local or gs://, read in bounded memory."""

import abc
import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from etils import epath

from moe_jax.errors import UserError

_COMPRESSED = (".gz", ".zst")

# The most that a compressed file may grow when it is decompressed: text grows 10 times, logs 100, a bomb 1000.
_BOMB_RATIO = 250
_BOMB_FLOOR = 2**26  # bytes that any file may decompress to


def compression(path: epath.Path) -> str | None:
    """The ending of a compressed file, in small letters; None for a plain file."""
    suffix = path.suffix.lower()
    return suffix if suffix in _COMPRESSED else None


class Lines:
    """The lines of an open file in bounded memory."""

    def __init__(self, file: BinaryIO, compressed: BinaryIO | None, path: epath.Path, offset: int = 0):
        self.offset = offset  # in the decompressed file, of the next byte that `read` gives
        self.path, self._file, self._compressed = path, file, compressed

    def read(self, limit: int) -> bytes:
        """The rest of the line including its end, but at most `limit` bytes; b"" at the end of the file.

        Raises UserError if the file is damaged, cannot be read, or is a decompression bomb."""
        try:
            part = self._file.readline(limit)
        except (gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError) as e:
            raise UserError(f"{self.path} is damaged: {e}") from e
        except OSError as e:
            raise UserError(f"{self.path} cannot be read: {e.strerror or e}") from e
        self.offset += len(part)
        if self._compressed and self.offset > _BOMB_FLOOR + _BOMB_RATIO * self._compressed.tell():
            raise UserError(
                f"{self.path} decompresses to more than {_BOMB_RATIO} times its size: "
                "this is a decompression bomb, not text"
            )
        return part

    def drop_rest(self, last: bytes) -> None:
        """Skips to the next line; `last` is the last part that was read of this one."""
        while last and not last.endswith(b"\n"):
            last = self.read(2**20)


@contextmanager
def open_lines(path: epath.Path, start: int = 0, encoding: str = "utf-8") -> Iterator[Lines]:
    """Opens a file at the first line that begins at byte `start` or later (0 for compressed and for encoded files).

    Text in another `encoding` than UTF-8 is given in UTF-8. Raises UserError if the file cannot be read."""
    try:
        raw = path.open("rb")
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}") from e
    with raw:
        packed = compression(path)
        file = gzip.GzipFile(fileobj=raw) if packed == ".gz" else _Zstandard(raw) if packed == ".zst" else raw
        if encoding != "utf-8":
            file = _Recoded(io.BufferedReader(file), encoding)
        raw.seek(max(start - 1, 0))
        lines = Lines(io.BufferedReader(file, 2**20), raw if packed else None, path, max(start - 1, 0))
        if start:
            lines.drop_rest(lines.read(2**20))
        yield lines


def head(path: epath.Path, n: int) -> bytes:
    """The first n bytes of a file, decompressed. Raises UserError if it cannot be read."""
    found = b""
    with open_lines(path) as lines:
        while len(found) < n and (part := lines.read(n - len(found))):
            found += part
    return found


class _Converted(io.RawIOBase):
    """The bytes that `_next` gives, part by part; b"" at the end."""

    _ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if not self._ready:
            self._ready = memoryview(self._next())
        n = min(len(buffer), len(self._ready))
        buffer[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n

    @abc.abstractmethod
    def _next(self) -> bytes:
        """The next part of the bytes, of any length; b"" at the end."""


class _Recoded(_Converted):
    """The UTF-8 bytes of a file in an encoding that has a byte order mark. Reading raises UnicodeDecodeError."""

    def __init__(self, file: BinaryIO, encoding: str):
        self._file, self._decoder = file, codecs.getincrementaldecoder(encoding)()

    def _next(self) -> bytes:
        text, fed = "", b"begin"
        while not text and fed:
            fed = self._file.read(2**16)
            text = self._decoder.decode(fed, final=not fed)
        return text.encode()


class _Zstandard(_Converted):
    """Decompressed bytes of a .zst file; unlike zstandard's own stream reader, notices that a file was cut."""

    # A frame may grow 30,000 times, so 1 kB of a bomb becomes at most 30 MB at once.
    _FED = 2**10

    def __init__(self, raw: BinaryIO):
        try:
            import zstandard
        except ImportError as e:
            raise UserError("reading .zst files needs zstandard: pip install zstandard") from e
        self._raw, self._library = raw, zstandard
        self._frame = None  # the decompressor of the current frame; None between frames

    def _next(self) -> bytes:
        opened = b""
        while not opened:
            fed = self._raw.read(self._FED)
            if not fed:
                if self._frame is not None:
                    raise EOFError("the compressed file ended before its end marker")
                break
            opened = self._decompress(fed)
        return opened

    def _decompress(self, fed: bytes) -> bytes:
        opened = b""
        try:
            while fed:
                self._frame = self._frame or self._library.ZstdDecompressor().decompressobj()
                opened += self._frame.decompress(fed)
                fed = self._frame.unused_data
                if self._frame.eof:
                    self._frame = None
        except self._library.ZstdError as e:
            raise EOFError(str(e)) from e
        return opened
