"""Reads a config file: `--config=configs/x.py:arg --config.moe.granularity=4` -> the ConfigDict and the grid's cells.

A config file defines `get_config(arg=None)`, which gives the ConfigDict, and, where it describes a sweep,
`get_grid(config, arg=None)`, which gives the grid's cells; the config that it gets has the command line's values. The
file is the user's own Python and is run; what it gives is checked by schema.py. It may import its neighbours and the
packaged configs (`from configs import common`), as packaged.py says.
"""

import ast
import dataclasses
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from moe_jax.config import fields, grid, packaged, schema
from moe_jax.config.cell import Cell, as_cell
from moe_jax.errors import UserError
from moe_jax.text import amount

HELP = """config flags:
  --config FILE[:ARG]        a config file, and the argument of its get_config (for example configs/smoke.py:tiny)
  --config.FIELD.FIELD=VALUE a field's value instead of the file's (for example --config.moe.granularity=4)"""


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """A config file that has been read."""

    spec: str  # FILE[:ARG], as given
    overrides: tuple[str, ...]  # --config.x=y flags, as given
    base: config_dict.FrozenConfigDict  # get_config's, with the command line's values
    cells: list[Cell] | None  # get_grid's; None: the file has no grid
    # A field that the command line sets by a rule -> what the rule is: its law and that law's SHA-256 (cli/rules.py).
    rules: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    said: tuple[str, ...] = ()  # sentences about what the rules set

    @property
    def config(self) -> schema.Config:
        """The base as a checked config. Raises UserError."""
        return fields.from_dict(self.base.to_dict())

    def runs(self, *, whole_grid: bool = True) -> list[grid.Run]:
        """The runs of its grid; with `whole_grid=False`, or without a grid, the one run of the config itself. Raises
        UserError as `grid.expand` does."""
        return grid.expand(self.base.to_dict(), self.cells if whole_grid else None)

    def with_overrides(self, *overrides: str) -> "ConfigFile":
        """The file as if the command line had these --config.x=y flags too; the grid's cells stay as they are."""
        base = _override(config_dict.ConfigDict(self.base), overrides)
        return dataclasses.replace(
            self, overrides=(*self.overrides, *overrides), base=config_dict.FrozenConfigDict(base)
        )

    def with_rule(
        self, field: str, value: Callable[[schema.Config], Any], rule: Mapping[str, str], *, whole_grid: bool
    ) -> "ConfigFile":
        """This file with a field set by a rule on each run's config: in every cell of its grid; with
        `whole_grid=False`, or without a grid, in the config itself. Raises UserError where the grid or the command line
        sets the field as well."""
        if any(override.removeprefix("--config.").partition("=")[0] == field for override in self.overrides):
            raise UserError(f"--config.{field}: is given, and {rule['law']} sets it too; give one of them")
        rules = {**self.rules, field: dict(rule)}
        if self.cells is None or not whole_grid:
            base = config_dict.ConfigDict(self.base)
            *groups, last = field.split(".")
            group = base
            for part in groups:
                group = group[part]
            with group.ignore_type():
                group[last] = value(self.config)
            return dataclasses.replace(self, base=config_dict.FrozenConfigDict(base), rules=rules)
        if any(field in cell.overrides for cell in self.cells if cell.refused is None):
            raise UserError(
                f"--config={self.spec}: its grid sets {field}, and {rule['law']} would set it too; take a variant whose"
                " grid does not, or leave the rule out"
            )
        cells = grid.rule(self.base.to_dict(), self.cells, field, lambda config, _: value(config))
        return dataclasses.replace(self, cells=cells, rules=rules)

    def check_overrides(self) -> None:
        """Raises UserError where the command line gives a value that every cell of the grid replaces."""
        cells = [cell for cell in self.cells or () if cell.refused is None]
        for override in self.overrides:
            field = override.removeprefix("--config.").partition("=")[0]
            if cells and all(field in cell.overrides for cell in cells):
                raise UserError(
                    f"{override}: every cell of the grid of {self.spec} sets it, so it would change nothing"
                )

    @property
    def refused(self) -> list[str]:
        """One sentence for each reason why cells of the grid are not to be run."""
        return grid.refusals(self.cells or ())

    @property
    def remarks(self) -> list[str]:
        """What the rules set, and what of the grid is not to be run."""
        return [*self.said, *self.refused]

    @property
    def flags(self) -> str:
        """The flags that give this config again, but for its rules."""
        return " ".join([f"--config={self.spec}", *self.overrides])


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """(config flags, the others); `--config FILE` becomes `--config=FILE`.

    Raises UserError for `--config.FIELD VALUE`."""
    config_args, others = [], []
    args = iter(argv)
    for arg in args:
        if arg == "--config":
            config_args.append(f"--config={next(args, '')}")
        elif arg.startswith("--config.") and "=" not in arg:
            raise UserError(f"{arg}: its value follows an equals sign: {arg}={next(args, 'VALUE')}")
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
    _check_takes(module, "get_config", ("arg=None",), specs[0])
    base = _call(module, "get_config", (arg or None,), specs[0])
    if not isinstance(base, config_dict.ConfigDict):
        raise UserError(f"--config={specs[0]}: get_config() must give a ConfigDict, not {type(base).__name__}")
    frozen = config_dict.FrozenConfigDict(_override(base, overrides))
    cells = None
    if hasattr(module, "get_grid"):
        _check_takes(module, "get_grid", ("config", "arg=None"), specs[0])
        cells = _cells(_call(module, "get_grid", (frozen, arg or None), specs[0]), specs[0])
    return ConfigFile(specs[0], tuple(overrides), frozen, cells)


def _module(file: str) -> Any:
    path = packaged.find(file)
    spec = importlib.util.spec_from_file_location("moe_jax_config_file", path)
    if spec is None:
        raise UserError(f"--config={file}: a config is a Python file, with the ending .py")
    module = importlib.util.module_from_spec(spec)
    try:
        with packaged.importable_beside(path):
            spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as e:
        raise UserError(f"--config={file}: cannot be read: {type(e).__name__}: {e}{_line_of(e, path)}") from e
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={file}: has no get_config(arg=None)")
    return module


def _call(module: Any, function: str, args: tuple[Any, ...], spec: str) -> Any:
    try:
        with packaged.importable_beside(Path(module.__file__)):
            return getattr(module, function)(*args)
    except UserError:
        raise
    except (Exception, SystemExit) as e:
        where = _line_of(e, Path(module.__file__))
        raise UserError(f"--config={spec}: {function} failed: {type(e).__name__}: {e}{where}") from e


def _line_of(e: BaseException, path: Path) -> str:
    """' (line 12)' of the config file where the error came from, if it did."""
    if isinstance(e, SyntaxError):
        return ""
    line, tb = None, e.__traceback__
    while tb is not None:
        if Path(tb.tb_frame.f_code.co_filename).resolve() == path.resolve():
            line = tb.tb_lineno
        tb = tb.tb_next
    return f" (line {line})" if line else ""


def _override(base: config_dict.ConfigDict, overrides: Sequence[str]) -> config_dict.ConfigDict:
    """The config with the command line's values: Python literals, numbers as 100k and 1.4B, or else texts. fields.py
    checks their types.

    ml_collections.config_flags would not do: it takes neither None nor 16e9, and reads sys.argv only."""
    known = set(fields.field_names())
    base.unlock()
    for override in overrides:
        name, equals, text = override.removeprefix("--config.").partition("=")
        if name not in known:
            raise fields.unknown_field(name)
        if not equals:
            raise UserError(f"{override}: its value follows an equals sign: {override}=VALUE")
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
        return text if math.isnan(value := amount(text)) else value  # 100k, 1.4B


def _check_takes(module: Any, function: str, parameters: Sequence[str], spec: str) -> None:
    """Refuses a get_config or a get_grid that does not take what it is given."""
    if not callable(getattr(module, function)):
        raise UserError(f"--config={spec}: {function} is {getattr(module, function)!r:.40}, not a function")
    try:
        inspect.signature(getattr(module, function)).bind(*parameters)
    except TypeError as e:
        raise UserError(f"--config={spec}: write it as def {function}({', '.join(parameters)})") from e


def _cells(given: Any, spec: str) -> list[Cell]:
    """What get_grid gave, as cells. Raises UserError with the number of the first that is none."""
    rule = "get_grid() must give a list of cells (or dicts of overrides), not empty"
    if not isinstance(given, list):
        raise UserError(f"--config={spec}: {rule}; it gave a {type(given).__name__}")
    if not given:
        raise UserError(f"--config={spec}: {rule}")
    if other := [c for c in given if not isinstance(c, (dict, Cell))]:
        raise UserError(f"--config={spec}: {rule}; cell {given.index(other[0]) + 1} is a {type(other[0]).__name__}")
    cells = []
    for i, cell in enumerate(given, 1):
        try:
            cells.append(as_cell(cell))
        except UserError as e:
            raise UserError(f"--config={spec}: cell {i} of the grid: {e}") from e
    return cells
