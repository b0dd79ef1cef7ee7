"""Files that the system does not let us read, for tests that may run as root, whom no permission stops."""

import builtins
import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock


@contextlib.contextmanager
def unreadable(*paths: Path) -> Iterator[None]:
    """Within the block these files and folders exist, and nobody may open or list them."""
    refused = {os.fspath(path) for path in paths}

    def refusing(function: Any) -> Any:
        def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
            if not isinstance(path, int) and os.fspath(path) in refused:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return function(path, *args, **kwargs)

        return call

    with contextlib.ExitStack() as patches:
        for module, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "listdir"), (os, "scandir")):
            patches.enter_context(mock.patch.object(module, name, refusing(getattr(module, name))))
        yield
