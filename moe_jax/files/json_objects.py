"""Files that hold one JSON object, some of them sealed: a seal is a digest of the fields, so that a change shows."""

import errno
import hashlib
import json
import os
import shlex
import stat
from typing import Any

from etils import epath

from moe_jax.errors import UserError
from moe_jax.files.whole import is_remote, write_atomic

_NO_FILE = {errno.EISDIR: "a folder, where a file belongs", errno.ELOOP: "a link that leads to itself"}
_SEAL = "fields_sha256"


class DamagedFile(UserError):
    """A file of ours that is not what we wrote: torn, truncated, or changed by something else."""


class UnreadableFile(DamagedFile):
    """A file that the system does not let us read. It may be sound, so nothing is put in its place."""


def read_file(path: epath.Path) -> bytes:
    """The bytes of a file. Raises FileNotFoundError, NotADirectoryError, UnreadableFile, or DamagedFile where something
    else than a file has its name: a folder, a link that leads nowhere or to itself, a pipe, which would never end."""
    name = os.fspath(path)  # a path of epath takes as long to spell its name as the system to open the file
    try:
        if is_remote(name):
            return path.read_bytes()
        if not stat.S_ISREG(mode := os.stat(name).st_mode) and not stat.S_ISDIR(mode):
            raise DamagedFile(f"{path}: is damaged (a pipe or a device, where a file belongs)")
        with open(name, "rb") as f:
            return f.read()
    except FileNotFoundError as e:
        if not is_remote(name) and os.path.islink(name):
            raise DamagedFile(f"{path}: is damaged (a link to a file that is not there)") from e
        raise
    except OSError as e:
        if e.errno in _NO_FILE:
            raise DamagedFile(f"{path}: is damaged ({_NO_FILE[e.errno]})") from e
        if e.errno is None or isinstance(e, NotADirectoryError):  # the first: an object store's client
            raise
        raise UnreadableFile(f"{path}: cannot be read ({os.strerror(e.errno)}); it stays as it is") from e


def write_json(path: epath.Path, value: Any) -> None:
    """Writes a JSON value as `write_atomic` does. Raises ValueError on NaN and infinities, which JSON does not have."""
    write_atomic(path, to_json(value))


def read_json(path: epath.Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises FileNotFoundError, or DamagedFile if the file holds anything else."""
    return parse_object(path, read_file(path))


def write_sealed(path: epath.Path, fields: dict[str, Any]) -> None:
    """Writes a JSON object with a digest of its fields, so that a changed field is noticed.

    One line a field, in the dict's order, so that people can read it and long lists stay out of their way. Raises
    ValueError on NaN and infinities."""
    lines = (f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}" for name, value in sealed(fields).items())
    write_atomic(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def read_sealed(path: epath.Path) -> dict[str, Any]:
    """The fields that `write_sealed` wrote. Raises FileNotFoundError, or DamagedFile if the file holds others."""
    return unsealed(path, read_json(path))


def sealed(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields with the digest that `unsealed` checks."""
    return fields | {_SEAL: _digest(fields)}


def reseal(path: epath.Path) -> bool:
    """Seals the fields that the file at `path` holds now; False where its seal is theirs already.

    Raises FileNotFoundError, DamagedFile if the file holds no JSON object, and UserError if the object has no seal."""
    content = read_json(path)
    if _SEAL not in content:
        raise UserError(f"{path}: has no seal ({_SEAL}), so there is none to renew")
    fields = _fields(content)
    if content[_SEAL] == _digest(fields):
        return False
    write_sealed(path, fields)
    return True


def unsealed(path: epath.Path, content: dict[str, Any]) -> dict[str, Any]:
    """The fields of a sealed object that was read from `path`. Raises DamagedFile if its digest is not theirs."""
    fields = _fields(content)
    if _SEAL not in content:
        raise DamagedFile(f"{path}: is damaged (its {_SEAL} is missing)")
    if content[_SEAL] != _digest(fields):
        raise DamagedFile(
            f"{path}: is damaged (its fields do not give its {_SEAL}); if you changed it by hand, `moe-jax reseal "
            f"{shlex.quote(str(path))}` makes the change valid"
        )
    return fields


def _fields(content: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != _SEAL}


def to_json(value: Any) -> bytes:
    """The value as JSON, indented by one. Raises ValueError on NaN and infinities."""
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def parse_object(path: epath.Path, data: bytes) -> dict[str, Any]:
    """The JSON object in `data`, the content of `path`. Raises DamagedFile."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as e:
        raise DamagedFile(f"{path}: is damaged (not JSON: {e})") from e
    if not isinstance(value, dict):
        raise DamagedFile(f"{path}: is damaged (a JSON object was written, this is a {type(value).__name__})")
    return value


def _digest(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
