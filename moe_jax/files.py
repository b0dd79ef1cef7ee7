"""Files that others read while we write: whole or not at all, on a local disk and on gs:// alike."""

import csv
import errno
import fcntl
import io
import json
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from moe_jax.errors import UserError

_NO_FILE = {errno.EISDIR: "a folder, where a file belongs", errno.ELOOP: "a link that leads to itself"}
Change = Callable[[dict[str, Any] | None], dict[str, Any]]


class DamagedFile(UserError):
    """A file of ours that is not what we wrote: torn, truncated, or changed by something else."""


def write_atomic(path: epath.Path, data: bytes) -> None:
    """Replaces `path` by `data`; a reader sees the old file or the new one, never a part. Raises OSError."""
    if _is_remote(path):
        path.write_bytes(data)  # an object appears when its upload is complete
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def create(path: epath.Path, data: bytes) -> bool:
    """Writes a file that is not there yet, whole; False where it is. Of several writers at once one is told True: by
    link(2) on a local disk (NFS too), by ifGenerationMatch=0 on gs://. `data` must differ from writer to writer."""
    if _is_remote(path):
        import fsspec

        try:
            fsspec.filesystem("gs").pipe_file(os.fspath(path), data, mode="create")
        except FileExistsError:
            return path.read_bytes() == data  # ours, where only the answer to the first try was lost
        return True
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def write_json(path: epath.Path, value: Any) -> None:
    """As write_atomic. Raises ValueError on NaN and infinities, which are no JSON."""
    write_atomic(path, _to_json(value))


def move_folder(source: epath.Path, target: epath.Path, last: str) -> None:
    """Moves a folder to where none is. An object store has no folders: there all is copied, then deleted, the file
    `last` last, so that what is interrupted can be done again as long as the source has it. Raises OSError."""
    if not _is_remote(source):
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


def read_json(path: epath.Path) -> dict[str, Any]:
    """The object in `path`. Raises FileNotFoundError, or DamagedFile where it is not a JSON object."""
    try:
        return _object(path, path.read_bytes())
    except OSError as e:
        if e.errno in _NO_FILE:
            raise DamagedFile(f"{path}: is damaged ({_NO_FILE[e.errno]})") from e
        raise


def _to_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _object(path: epath.Path, data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise DamagedFile(f"{path}: is damaged (not JSON: {e})") from e
    if not isinstance(value, dict):
        raise DamagedFile(f"{path}: is damaged (a JSON object was written, this is a {type(value).__name__})")
    return value


def update_json(path: epath.Path, change: Change) -> None:
    """Makes the object in `path` (None: there is none) what `change` makes of it. Several writers at once take turns,
    by flock(2) on a local disk and by a conditional write on an object store, so that none overwrites what it has not
    seen. Where nothing changes nothing is written. `change` may be called several times, and its last word counts.
    Raises as read_json, OSError, UserError where there is no such bucket, and what `change` raises."""
    if _is_remote(path):
        _update_object(path, change)
        return
    old = _read(path)
    if (new := _changed(path, old, change)) == old:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.name}.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (seen := _read(path)) != old:
            old, new = seen, _changed(path, seen, change)
        if new != old:
            write_atomic(path, new)


def _update_object(path: epath.Path, change: Change) -> None:
    folder = _key_values(os.fspath(path.parent))
    while True:
        read = _done(path, folder.read(path.name))
        old = None if read.state == "missing" else read.value
        new = _changed(path, old, change)
        if new == old or _done(path, folder.write(path.name, new, if_equal=read.stamp.generation)).generation:
            return  # else another writer came between


def _key_values(folder: str) -> Any:
    import tensorstore as ts  # of what we depend on, the one that knows conditional writes

    return _done(folder, ts.KvStore.open(f"{folder}/"))


def _done(what: Any, future: Any) -> Any:
    try:
        return future.result()
    except ValueError as e:  # as TensorStore says whatever went wrong
        why = str(e).splitlines()[0]
        if why.startswith("NOT_FOUND"):  # a missing object is an answer and no error, so this is the bucket
            raise UserError(f"{what}: cannot be written, as there is no such bucket; make it, or name another") from e
        raise OSError(f"{what}: {why}") from e


def _read(path: epath.Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _changed(path: epath.Path, old: bytes | None, change: Change) -> bytes:
    return _to_json(change(None if old is None else _object(path, old)))


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Rows as CSV, the first one's keys as its columns. Floats are written so that they read back as the same bits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def absolute(path: epath.Path) -> epath.Path:
    """The path from the root; an object store's as it is."""
    return path if _is_remote(path) else epath.Path(os.path.abspath(path))


def _is_remote(path: epath.Path) -> bool:
    return "://" in os.fspath(path)
