"""Reads a config file: `--config=configs/x.py:arg --config.moe.granularity=4` -> the ConfigDict and the grid's cells.

The file is the user's own Python and is run; what it gives is checked by config.py. A config file may import its
neighbours (`from configs import common`): the folder above its own is on the path while it is read.
"""

import ast
import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from moe_jax import config as config_lib
from moe_jax import config_fields, grid
from moe_jax.errors import UserError

HELP = """config flags:
  --config FILE[:ARG]        a config file, and the argument of its get_config (for example configs/smoke.py:tiny)
  --config.FIELD.FIELD=VALUE a field's value instead of the file's (for example --config.moe.granularity=4)"""


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """A config file, read: `base` is get_config's with the command line's values, `cells` are get_grid's overrides."""

    spec: str  # FILE[:ARG], as given
    overrides: tuple[str, ...]  # --config.x=y flags, as given
    base: config_dict.FrozenConfigDict
    cells: list[dict[str, Any]] | None  # None: the file has no grid

    @property
    def config(self) -> config_lib.Config:
        return config_fields.from_dict(self.base.to_dict())

    def check_overrides(self) -> None:
        """Raises UserError where the command line gives a value that every cell of the grid replaces."""
        cells = [cell for cell in self.cells or () if "refused" not in cell]
        for override in self.overrides:
            field = override.removeprefix("--config.").partition("=")[0]
            if cells and all(field in cell for cell in cells):
                raise UserError(
                    f"{override}: every cell of the grid of {self.spec} sets it, so it would change nothing"
                )

    @property
    def refused(self) -> list[str]:
        """Why some cells of the grid are not to be run."""
        return grid.refusals(self.cells or ())

    @property
    def flags(self) -> str:
        """The flags that give this config again."""
        return " ".join([f"--config={self.spec}", *self.overrides])


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(config flags, the others); `--config FILE` becomes `--config=FILE`."""
    config_args, others = [], []
    args = iter(argv)
    for arg in args:
        if arg == "--config":
            config_args.append(f"--config={next(args, '')}")
        elif arg.startswith(("--config=", "--config.")):
            config_args.append(arg)
        else:
            others.append(arg)
    return config_args, others


def load(config_args: Sequence[str]) -> ConfigFile:
    """The config of flags as `split` gives them. Raises UserError on anything wrong with the file or a field."""
    specs = [a.removeprefix("--config=") for a in config_args if a.startswith("--config=")]
    if len(specs) != 1 or not specs[0]:
        raise UserError("--config: give one config file, for example --config=configs/smoke.py")
    overrides = [a for a in config_args if a.startswith("--config.")]
    file, _, arg = specs[0].partition(":")
    module = _module(file)
    base = _call(module, "get_config", arg or None, specs[0])
    if not isinstance(base, config_dict.ConfigDict):
        raise UserError(f"--config={specs[0]}: get_config() must give a ConfigDict, not {type(base).__name__}")
    base = _override(base, overrides)
    cells = None
    if hasattr(module, "get_grid"):
        # A grid that follows from the config, by a rule or a budget, follows from the one that is run.
        original = module.get_config
        module.get_config = lambda a=None: base.copy_and_resolve_references() if a == (arg or None) else original(a)
        cells = _call(module, "get_grid", arg or None, specs[0])
        _check_cells(cells, specs[0])
    return ConfigFile(specs[0], tuple(overrides), config_dict.FrozenConfigDict(base), cells)


def _module(file: str) -> Any:
    path = Path(file)
    if not path.is_file():
        raise UserError(f"--config={file}: there is no such file")
    spec = importlib.util.spec_from_file_location("moe_jax_config_file", path)
    if spec is None:
        raise UserError(f"--config={file}: a config is a Python file, with the ending .py")
    module = importlib.util.module_from_spec(spec)
    neighbours, ours = str(path.resolve().parent.parent), str(Path(__file__).parent.parent)
    sys.path.insert(0, neighbours)
    sys.path.append(ours)  # a config elsewhere may start from this checkout's configs/common.py
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as e:
        raise UserError(f"--config={file}: cannot be read: {type(e).__name__}: {e}{_line_of(e, path)}") from e
    finally:
        sys.path.remove(neighbours)
        sys.path.pop()
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={file}: has no get_config(arg=None)")
    return module


def _call(module: Any, function: str, arg: str | None, spec: str) -> Any:
    try:
        return getattr(module, function)(arg)
    except UserError:
        raise
    except (Exception, SystemExit) as e:
        where = _line_of(e, Path(module.__file__))
        raise UserError(f"--config={spec}: {function}({arg!r}) failed: {type(e).__name__}: {e}{where}") from e


def _line_of(e: BaseException, path: Path) -> str:
    """' (line 12)' of the config file where the error came from, if it did."""
    if isinstance(e, SyntaxError):
        return ""
    line, tb = None, e.__traceback__
    while tb is not None:
        if Path(tb.tb_frame.f_code.co_filename) == path:
            line = tb.tb_lineno
        tb = tb.tb_next
    return f" (line {line})" if line else ""


def _override(base: config_dict.ConfigDict, overrides: Sequence[str]) -> config_dict.ConfigDict:
    """The command line's values: Python literals, else texts. config.py checks their types, in its own sentences.

    Not ml_collections.config_flags: it cannot say None or 16e9, and sys.argv is not the only place flags come from."""
    known = set(config_fields.field_names())
    base.unlock()
    for override in overrides:
        name, equals, text = override.removeprefix("--config.").partition("=")
        if name not in known:
            raise config_fields.unknown_field(name)
        if not equals:
            raise UserError(f"{override}: write it as {override}=VALUE")
        *groups, field = name.split(".")
        group = base
        for part in groups:
            group = group[part]
            if group is None:
                raise UserError(f"{override}: config.{part} is None (a dense model), which has no such field")
        with group.ignore_type():
            group[field] = _value(text)
    return base.lock()


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _check_cells(cells: Any, spec: str) -> None:
    if not isinstance(cells, list) or not cells or not all(isinstance(c, dict) for c in cells):
        raise UserError(f"--config={spec}: get_grid() must give a list of dicts of overrides, with at least one")
    for i, cell in enumerate(cells, 1):
        where = f"--config={spec}: cell {i} of the grid"
        if not all(isinstance(field, str) for field in cell):
            raise UserError(f'{where}: its fields must be texts, as "train.tokens"; it is {cell!r:.200}')
        if not isinstance(cell.get("refused", ""), str):
            raise UserError(f"{where}: 'refused' must be the reason, a text, not {cell['refused']!r:.40}")
        if not isinstance(cell.get("derived", ()), (tuple, list)):
            raise UserError(f"{where}: 'derived' must list fields, not {cell['derived']!r:.40}")
