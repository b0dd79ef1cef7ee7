"""Folders that appear whole or not at all, on a local disk: an object store cannot rename one."""

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from moe_jax.files.whole import absolute


@contextmanager
def new_folder(path: epath.Path) -> Iterator[epath.Path]:
    """A new folder beside `path`, to which it is renamed when the block ends without an exception; with one, nothing
    of it is left. Makes the folders above `path`. Raises OSError, also where something else is at `path` by then."""
    path = absolute(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
