"""Whole files, local or gs://: they appear complete or not at all."""

import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from etils import epath

_OS_ERROR = re.compile(r"OS error (\d+)")
_SEAL = "fields_sha256"
_DISK_FULL = "No space left on device"


@contextmanager
def writing(path: epath.Path) -> Iterator[BinaryIO]:
    """A file to write that takes its place at `path` when the block ends without an exception.

    The temporary name is unique: a writer that outlives a kill -9 of its parent cannot spoil what its successor writes.
    """
    if "://" in os.fspath(path):
        # An object appears when it is closed, also by an exception: so it is opened when its content is there.
        with tempfile.TemporaryFile() as f:
            yield f
            f.seek(0)
            with path.open("wb") as uploaded:
                shutil.copyfileobj(f, uploaded, 2**24)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}")
    try:
        with temporary.open("wb") as f:
            yield f
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: epath.Path, fields: dict[str, Any]) -> None:
    """One line a field, in the dict's order, so that long lists stay out of a reader's way."""
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items())
    with writing(path) as f:
        f.write(("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_json(path: epath.Path) -> Any:
    """Raises FileNotFoundError, or ValueError where the content is not JSON in UTF-8."""
    return json.loads(path.read_bytes())


def write_sealed(path: epath.Path, fields: dict[str, Any]) -> None:
    """As write_json, with a digest of the fields, so that no change of one is taken for what was written."""
    write_json(path, fields | {_SEAL: _digest(fields)})


def read_sealed(path: epath.Path) -> dict[str, Any]:
    """Raises FileNotFoundError, or ValueError where the content is not what `write_sealed` wrote."""
    return unsealed(read_json(path))


def unsealed(content: Any) -> dict[str, Any]:
    """The fields; raises ValueError where `content` is not as `write_sealed` wrote it."""
    if not isinstance(content, dict):
        raise ValueError("it holds no fields")
    fields = {name: value for name, value in content.items() if name != _SEAL}
    if content.get(_SEAL) != _digest(fields):
        raise ValueError(f"its fields do not give its {_SEAL}")
    return fields


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@contextmanager
def locked(path: epath.Path) -> Iterator[bool]:
    """Whether no other process has this local file locked; a process that is killed lets go. True for gs://."""
    if "://" in os.fspath(path):
        yield True
        return
    with open(path, "ab") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def os_errors(path: epath.Path) -> Iterator[None]:
    """Gives TensorStore's errors, all ValueError, the class they would have from Python's own files."""
    try:
        yield
    except ValueError as e:
        if found := _OS_ERROR.search(str(e)):
            code = int(found[1])
        elif _DISK_FULL in str(e):
            code = errno.ENOSPC
        else:
            raise
        raise OSError(code, os.strerror(code), os.fspath(path)) from e
