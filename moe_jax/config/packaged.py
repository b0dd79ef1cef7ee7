"""The configs that come with moe_jax: where they are, and how another config file imports them."""

import contextlib
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from moe_jax.errors import UserError
from moe_jax.provenance import source_tree

_PACKAGE = "configs"
_one_at_a_time = threading.RLock()  # sys.modules and sys.path are the process's


def folder() -> Path:
    """The folder of our configs: configs/ of a source tree, else where the wheel puts it, inside the package."""
    tree = source_tree()
    return Path(__file__).parents[1] / _PACKAGE if tree is None else tree / _PACKAGE


def names() -> list[str]:
    """Our configs as --config takes them: `configs/smoke.py`."""
    found = [path for path in folder().glob("*.py") if "def get_config(" in path.read_text(encoding="utf-8")]
    return sorted(f"{_PACKAGE}/{path.name}" for path in found)


def find(file: str) -> Path:
    """The config file of that path; where there is none, `configs/NAME.py` is ours. Raises UserError where neither is
    there."""
    path = Path(file)
    if path.is_file():
        return path
    ours = folder() / path.name
    if path.parts == (_PACKAGE, path.name) and ours.is_file():
        return ours
    if path.is_dir():
        inside = ", ".join(sorted(str(p) for p in path.glob("*.py"))[:12])
        raise UserError(f"--config={file}: is a folder; give a file" + (f" of it: {inside}" if inside else ""))
    raise UserError(f"--config={file}: there is no such file; moe_jax comes with {', '.join(names())}")


@contextlib.contextmanager
def importable_beside(path: Path) -> Iterator[None]:
    """Within it, a config file can import its neighbours and our configs.

    The folder above its own is on the path, and `from configs import common` takes the module from the `configs` in
    there or, where that has none, from ours. Afterwards sys.modules is as it was: two config files may each have a
    `configs/common.py` of their own. One thread at a time."""
    above = path.resolve().parent.parent
    spec = importlib.machinery.ModuleSpec(_PACKAGE, None, is_package=True)
    spec.submodule_search_locations = [str(above / _PACKAGE), str(folder())]
    with _one_at_a_time:
        before = _taken_out()
        sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(above))
        try:
            yield
        finally:
            sys.path.remove(str(above))
            _taken_out()
            sys.modules.update(before)


def _taken_out() -> dict[str, object]:
    """Takes `configs` and its modules out of sys.modules."""
    mine = [name for name in [*sys.modules] if name == _PACKAGE or name.startswith(f"{_PACKAGE}.")]
    return {name: sys.modules.pop(name) for name in mine}
