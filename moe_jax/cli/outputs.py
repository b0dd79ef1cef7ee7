"""Files that a verb writes: what cannot be written is refused before the work, or told in one sentence after it."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from moe_jax import errors, files


def refuse_unwritable(path: str, flag: str) -> None:
    """Raises UserError where a file cannot be written at a local path; `flag` names another place.

    Nothing is left there: where the path's folder does not exist yet, the folder above is tried."""
    where = epath.Path(path)
    if files.is_remote(where):
        return
    folder = where.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    try:
        if where.is_dir():
            raise IsADirectoryError("it is a folder")
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise errors.UserError(f"{path} cannot be written: {_reason(e)}; {flag} names another place") from e


def refuse_existing(path: str, flag: str) -> None:
    """Raises UserError where a new folder cannot be made at a local path: where something is there already, on an
    object store, which cannot make one at once, or where nothing can be written; `flag` names another place."""
    if files.is_remote(path):
        raise errors.UserError(f"{flag}={path}: must be on a local disk, where the folder appears whole or not at all")
    if not path or os.path.lexists(path):
        raise errors.UserError(f"{flag}={path}: {'is there already' if path else 'is empty'}; name a new folder")
    refuse_unwritable(path, flag)


@contextmanager
def writing(path: str, flag: str) -> Iterator[None]:
    """Raises WorkFailed where the block cannot write the file, or the folder of files, at `path`."""
    try:
        yield
    except OSError as e:
        if errors.environment_failure(e) is not None:  # has a sentence of its own
            raise
        raise errors.WorkFailed(f"{path} cannot be written: {_reason(e)}; {flag} names another place") from e


def write(path: str, content: bytes, flag: str) -> None:
    """Writes a file whole. One that stands there with another content is kept as NAME.1.csv, NAME.2.csv, …, and named.

    Raises WorkFailed where it cannot be written."""
    where = epath.Path(path)
    with writing(path, flag):
        if where.exists() and where.read_bytes() != content:
            numbered = (where.with_name(f"{where.stem}.{i}{where.suffix}") for i in itertools.count(1))
            aside = next(name for name in numbered if not name.exists())
            where.rename(aside)
            print(f"the earlier {path} was moved to {aside}")
        files.write_atomic(where, content)


def _reason(e: OSError) -> str:
    return (e.strerror or str(e)).lower()
