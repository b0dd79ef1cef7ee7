"""Bytes of a text file, plain, .gz or .zst, local or gs://, always read in bounded memory."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from etils import epath

from moe_jax.errors import UserError

_COMPRESSED = (".gz", ".zst")

# A compressed file may open out so many times its size and no further: text reaches 10, logs 100, a bomb 1000.
_BOMB_RATIO = 250
_BOMB_FLOOR = 2**26  # small files may do as they like


def compression(path: epath.Path) -> str | None:
    """The ending, in small letters, that says how the file is compressed; None where it is not."""
    suffix = path.suffix.lower()
    return suffix if suffix in _COMPRESSED else None


class Lines:
    """The lines of an open file in bounded memory."""

    def __init__(self, file: BinaryIO, compressed: BinaryIO | None, path: epath.Path, offset: int = 0):
        self.offset = offset  # of what `read` gives next
        self._file, self._compressed, self._path = file, compressed, path

    def read(self, limit: int) -> bytes:
        """The rest of the line up to its end, or `limit` bytes of it; b"" at the end of the file."""
        try:
            part = self._file.readline(limit)
        except (gzip.BadGzipFile, zlib.error, EOFError) as e:
            raise UserError(f"{self._path} is damaged: {e}") from e
        except OSError as e:
            raise UserError(f"{self._path} cannot be read: {e.strerror or e}") from e
        self.offset += len(part)
        if self._compressed and self.offset > _BOMB_FLOOR + _BOMB_RATIO * self._compressed.tell():
            raise UserError(
                f"{self._path} opens out more than {_BOMB_RATIO} times: this is no text but a decompression bomb"
            )
        return part

    def drop_rest(self, last: bytes) -> None:
        """Goes to the next line, where `last` is what was read of this one."""
        while last and not last.endswith(b"\n"):
            last = self.read(2**20)


@contextmanager
def open_lines(path: epath.Path, start: int = 0) -> Iterator[Lines]:
    """The file's lines, from the first that begins at byte `start` or later (0 for compressed files)."""
    try:
        raw = path.open("rb")
    except OSError as e:
        raise UserError(f"{path} cannot be read: {e.strerror or e}") from e
    with raw:
        if compression(path) == ".gz":
            yield Lines(gzip.GzipFile(fileobj=raw), raw, path)
        elif compression(path) == ".zst":
            yield Lines(io.BufferedReader(_Zstandard(raw)), raw, path)
        else:
            raw.seek(max(start - 1, 0))
            lines = Lines(io.BufferedReader(raw, 2**20), None, path, max(start - 1, 0))
            if start:
                lines.drop_rest(lines.read(2**20))
            yield lines


class _Zstandard(io.RawIOBase):
    """zstandard's own stream reader ends a cut file as if nothing were missing."""

    # A frame may open out 30,000 times, so a bomb's 1 kB can become 30 MB at once and no more.
    _FED = 2**10

    def __init__(self, raw: BinaryIO):
        try:
            import zstandard
        except ImportError as e:
            raise UserError("reading .zst files needs zstandard: pip install zstandard") from e
        self._raw, self._library = raw, zstandard
        self._frame = None  # being decompressed; None between frames
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._ready:
            fed = self._raw.read(self._FED)
            if not fed:
                if self._frame is not None:
                    raise EOFError("the compressed file ended before its end marker")
                return 0
            self._ready = memoryview(self._decompress(fed))
        n = min(len(buffer), len(self._ready))
        buffer[:n] = self._ready[:n]
        self._ready = self._ready[n:]
        return n

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
