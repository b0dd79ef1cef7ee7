"""A JSON object that several processes change in turn, so that none overwrites what it has not seen."""

import os
from collections.abc import Callable
from typing import Any

from etils import epath

from moe_jax.errors import UserError
from moe_jax.files.json_objects import parse_object, read_file, to_json
from moe_jax.files.locks import locked
from moe_jax.files.whole import is_remote, write_atomic

Change = Callable[[dict[str, Any] | None], dict[str, Any]]


def update_json(path: epath.Path, change: Change) -> None:
    """Replaces the object in `path` by change(object); `change` gets None if there is no file.

    Several writers take turns, by flock(2) on a local disk and by a conditional write on an object store, so none
    overwrites what it has not seen. `change` may be called several times, and its last answer counts; if that is what
    the file holds already, nothing is written. Raises as `read_json`, OSError, UserError if the bucket does not exist,
    and what `change` raises."""
    if is_remote(path):
        _update_object(path, change)
        return
    old = _read(path)
    if (new := _changed(path, old, change)) == old:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{path.name}.lock"), wait=lambda: None):
        if (seen := _read(path)) != old:
            old, new = seen, _changed(path, seen, change)
        if new != old:
            write_atomic(path, new)


def _update_object(path: epath.Path, change: Change) -> None:
    folder = _key_values(os.fspath(path.parent))
    while True:
        read = _result(path, folder.read(path.name))
        old = None if read.state == "missing" else read.value
        new = _changed(path, old, change)
        if new == old or _result(path, folder.write(path.name, new, if_equal=read.stamp.generation)).generation:
            return  # otherwise another writer came between: look again


def _key_values(folder: str) -> Any:
    import tensorstore as ts  # the one of our dependencies that has conditional writes

    return _result(folder, ts.KvStore.open(f"{folder}/"))


def _result(what: Any, future: Any) -> Any:
    try:
        return future.result()
    except ValueError as e:  # TensorStore raises nothing else, whatever went wrong
        why = str(e).splitlines()[0]
        if why.startswith("NOT_FOUND"):  # a missing object is an answer, not an error: this is the bucket
            raise UserError(f"{what}: cannot be written, as there is no such bucket; make it, or name another") from e
        raise OSError(f"{what}: {why}") from e


def _read(path: epath.Path) -> bytes | None:
    try:
        return read_file(path)
    except FileNotFoundError:
        return None


def _changed(path: epath.Path, old: bytes | None, change: Change) -> bytes:
    return to_json(change(None if old is None else parse_object(path, old)))
