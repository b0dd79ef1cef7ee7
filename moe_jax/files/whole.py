"""Files that appear whole or not at all: readers see the old file or the new one, never a part."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from etils import epath

_MEMORY_BYTES = 2**22  # an upload up to this size waits in memory, a larger one on the local disk


@contextmanager
def writing(path: epath.Path) -> Iterator[BinaryIO]:
    """Opens a new file that replaces `path` when the block ends without an exception; readers see the old file or the
    new one, never a part. Raises OSError.

    The temporary name is unique: a writer that outlives a kill -9 of its parent cannot spoil what its successor writes.
    """
    if is_remote(path):
        # An object appears when it is closed, even by an exception: so its content is complete before it is opened.
        with tempfile.SpooledTemporaryFile(_MEMORY_BYTES) as f:
            yield f
            f.seek(0)
            with path.open("wb") as uploaded:
                shutil.copyfileobj(f, uploaded, 2**24)
        return
    temporary = _temporary(path)
    try:
        with _open_durable(temporary) as f:
            yield f
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: epath.Path, data: bytes) -> None:
    """Replaces `path` by `data`; a reader sees the old file or the new one, never a part. Raises OSError."""
    with writing(path) as f:
        f.write(data)


def create(path: epath.Path, data: bytes) -> bool:
    """Writes a whole file where there is none yet; False where there is one.

    If several writers try at once, exactly one gets True: by link(2) on a local disk (NFS too), by ifGenerationMatch=0
    on gs://. `data` must differ from writer to writer. Raises OSError."""
    if is_remote(path):
        import fsspec

        try:
            fsspec.filesystem("gs").pipe_file(os.fspath(path), data, mode="create")
        except FileExistsError:
            return path.read_bytes() == data  # ours, if only the answer to the first try was lost
        return True
    temporary = _temporary(path)
    try:
        with _open_durable(temporary) as f:
            f.write(data)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def move_folder(source: epath.Path, target: epath.Path, last: str) -> None:
    """Moves a folder to a path where there is none. Raises OSError.

    On an object store every file is copied, then deleted, the one named `last` last: as long as the source has that
    file, an interrupted move can be repeated."""
    if not is_remote(source):
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)
        return
    import fsspec

    store, old, new = fsspec.filesystem("gs"), os.fspath(source), os.fspath(target)
    found = sorted(store.find(old), key=lambda path: path.endswith(f"/{last}"))
    inside = [path.partition(f"{old.partition('://')[2]}/")[2] for path in found]
    for path in inside:
        store.cp_file(f"{old}/{path}", f"{new}/{path}")
    for path in inside:
        store.rm_file(f"{old}/{path}")


def names_in(folder: epath.Path) -> list[str]:
    """The names of what is in a folder; none where there is no such folder. Raises OSError."""
    if is_remote(folder):
        return [path.name for path in folder.iterdir()] if folder.exists() else []
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def absolute(path: epath.Path) -> epath.Path:
    """The absolute path; a gs:// path unchanged."""
    return path if is_remote(path) else epath.Path(os.path.abspath(path))


@contextmanager
def _open_durable(path: epath.Path) -> Iterator[BinaryIO]:
    """A new file that is on the disk when the block ends, and survives a power failure."""
    with open(path, "wb") as f:
        yield f
        f.flush()
        os.fsync(f.fileno())


def _temporary(path: epath.Path) -> epath.Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")


def is_remote(path: str | os.PathLike) -> bool:
    """Whether the path is on an object store."""
    return "://" in os.fspath(path)
