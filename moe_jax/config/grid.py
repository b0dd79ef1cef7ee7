"""Grids as values: functions that build and combine cells, and cells -> runs with names and configs.

Every function takes Cells, or plain dicts of overrides in their place: `{"model.d_model": 32, "train.tokens": 96_000}`;
`{"moe": None}` is a dense twin. Each gives a new list. No I/O.
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax.config import counts
from moe_jax.config import fields as fields_lib
from moe_jax.config.cell import Cell, as_cell
from moe_jax.config.checks import refuse
from moe_jax.config.counts import Counts
from moe_jax.config.names import run_name
from moe_jax.config.schema import Config
from moe_jax.errors import UserError
from moe_jax.text import count

__all__ = [
    "Cell", "Run", "axis", "chain", "config_of", "expand", "iso_flop", "keep_only", "possible", "prefix", "product",
    "refusals", "rule", "width_transfer", "zipped",
]  # fmt: skip

AnyCell = Cell | Mapping[str, Any]
_TRANSFERS = "grid.width_transfer takes the rate to other widths only where"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a grid: its name, what its cell overrides, and its whole config."""

    name: str
    overrides: Mapping[str, Any]
    config: Config


def axis(field: str, values: Iterable[Any]) -> list[Cell]:
    """One cell for each value of a field."""
    return [Cell({field: value}) for value in values]


def product(*grids: Iterable[AnyCell]) -> list[Cell]:
    """Every combination of one cell of each grid; the last varies fastest. Raises UserError where two of them set one
    field to different values."""
    return [_merged(cells) for cells in itertools.product(*grids)]


def zipped(*grids: Iterable[AnyCell]) -> list[Cell]:
    """The grids' first cells in one, their second cells in one, …; the grids must be equally long."""
    return [_merged(cells) for cells in zip(*grids, strict=True)]


def chain(*grids: Iterable[AnyCell]) -> list[Cell]:
    """The cells of all grids, one after the other."""
    return [as_cell(cell) for cell in itertools.chain(*grids)]


def prefix(group: str, cells: Iterable[AnyCell]) -> list[Cell]:
    """Cells that name the fields of one group without the group: prefix("model", [{"d_model": 32}]) sets
    model.d_model."""
    return [
        dataclasses.replace(
            cell,
            overrides={f"{group}.{field}": value for field, value in cell.overrides.items()},
            derived=tuple(f"{group}.{field}" for field in cell.derived),
        )
        for cell in map(as_cell, cells)
    ]


def keep_only(cells: Iterable[AnyCell], keep: Callable[[Mapping[str, Any]], bool], reason: str) -> list[Cell]:
    """Marks cells as refused where `keep(overrides)` is False, for a reason that `plan` prints."""
    return [
        cell if cell.refused is not None or keep(cell.overrides) else dataclasses.replace(cell, refused=reason)
        for cell in map(as_cell, cells)
    ]


def possible(base: Mapping[str, Any], cells: Iterable[AnyCell]) -> list[Cell]:
    """Marks cells with an invalid config as refused, with the check's sentence; else `expand` refuses the whole
    grid."""
    found = []
    for cell in map(as_cell, cells):
        if cell.refused is None:
            try:
                config_of(base, cell)
            except UserError as e:
                cell = dataclasses.replace(cell, refused=str(e))
        found.append(cell)
    return found


def rule(
    base: Mapping[str, Any], cells: Iterable[AnyCell], field: str, value: Callable[[Config, Counts], Any]
) -> list[Cell]:
    """Sets a field in every cell by a rule on the cell's config and parameter counts (N, D, E, …). Embeddings are not
    counted where the config leaves the vocabulary to the store."""

    def with_rule(cell: Cell) -> Cell:
        config = config_of(base, cell)
        counted = counts.count_parameters(config, config.model.vocab_size or 0)
        return cell | Cell({field: value(config, counted)}, derived=(field,))

    return [cell if cell.refused is not None else with_rule(cell) for cell in map(as_cell, cells)]


def width_transfer(base: Mapping[str, Any], cells: Iterable[AnyCell]) -> list[Cell]:
    """Cells of several widths that take the learning rate tuned at the base's: the maximal update parametrisation (μP).

    By table 3 of Yang et al. 2022 (Tensor Programs V, arXiv 2203.03466) for Adam, with m = d_model / the base's: the
    rate of matrices that multiply hidden states falls as 1/m (optim.matrix_rate), and the variance of the unembedding
    as 1/fan_in² (model.readout_init_scale), not 1/fan_in; embeddings and vectors keep both. An expert is such a matrix
    and the router, whose outputs do not grow with the width, is as the unembedding; we know of Małaśnicki et al. 2025
    (μ-Parametrization for Mixture of Experts, arXiv 2508.09752) that it derives μP for both, not its tables.

    Raises UserError where more than the width changes in what the table is about: heads, d_ff and experts."""
    small = config_of(base, {}).model

    def growth(config: Config) -> float:
        wide = config.model
        if wide.head_dim != small.head_dim:
            refuse("model.head_dim", wide.head_dim, f"{_TRANSFERS} the width of a head stays the base's")
        if wide.d_ff * small.d_model != small.d_ff * wide.d_model:
            refuse("model.d_ff", wide.d_ff, f"{_TRANSFERS} d_ff / d_model stays the base's")
        return wide.d_model / small.d_model

    cells = rule(base, cells, "optim.matrix_rate", lambda config, _: 1 / growth(config))
    scale = small.readout_init_scale
    return rule(base, cells, "model.readout_init_scale", lambda config, _: scale / growth(config))


def iso_flop(
    base: Mapping[str, Any], cells: Iterable[AnyCell], budgets: Sequence[float], flops: str, vocab_size: int
) -> list[Cell]:
    """Every cell at every budget of FLOPs: D is what the budget pays for, in whole steps (at least one), by the count
    of counts.Flops named `flops`; the budgets vary slowest."""

    def at(budget: float, cell: Cell) -> Cell:
        config = config_of(base, cell)
        step_flops = getattr(counts.count_flops(config, vocab_size, config.batch_tokens), flops)
        return cell | {"train.tokens": max(1, round(budget / step_flops)) * config.batch_tokens}

    shapes = [as_cell(cell) for cell in cells]
    return [cell if cell.refused is not None else at(budget, cell) for budget in budgets for cell in shapes]


def _merged(cells: Iterable[AnyCell]) -> Cell:
    merged = Cell({})
    for cell in cells:
        merged = merged | cell
    return merged


def refusals(cells: Iterable[AnyCell]) -> list[str]:
    """One sentence for each reason why cells are not to be run."""
    by_reason: dict[str, list[Cell]] = {}
    for cell in map(as_cell, cells):
        if cell.refused is not None:
            by_reason.setdefault(cell.refused, []).append(cell)
    return [
        f"left out of the grid: {count(len(some), 'cell')}, {some[0]}{', …' if len(some) > 1 else ''}: {reason}"
        for reason, some in by_reason.items()
    ]


def config_of(base: Mapping[str, Any], cell: AnyCell) -> Config:
    """The whole config of a cell. Raises UserError."""
    return fields_lib.from_dict(_overlay(base, as_cell(cell).overrides))


def expand(base: Mapping[str, Any], cells: Iterable[AnyCell] | None) -> list[Run]:
    """The runs of a base config (a nested dict) and those of its cells that are not refused; without cells, the base
    itself as the one run.

    Raises UserError on a cell whose config is refused, on two cells with one name, and where none is left."""
    runs: dict[str, Run] = {}
    all_cells = [Cell({})] if cells is None else [as_cell(cell) for cell in cells]
    for i, cell in enumerate(all_cells, 1):
        if cell.refused is not None:
            continue
        where = f"cell {i} of the grid, {cell}: " if cell.overrides else ""
        try:
            run = _run_of(base, cell)
        except UserError as e:
            raise UserError(f"{where}{e}") from e
        if run.name in runs:
            raise UserError(
                f"{where}its name {run.name} is taken by {dict(runs[run.name].overrides)}; name one of them: "
                "Cell({…}, name=…)"
            )
        runs[run.name] = run
    if not runs:
        raise UserError(f"the grid has no cell that is to be run; {'; '.join(refusals(all_cells))}")
    return list(runs.values())


def _run_of(base: Mapping[str, Any], cell: Cell) -> Run:
    config = config_of(base, cell)
    overrides = {field: _plain(value) for field, value in cell.overrides.items()}
    axes = {field: value for field, value in overrides.items() if field not in cell.derived}
    return Run(run_name(config, axes, cell.name), overrides, config)


def _overlay(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    values = json.loads(json.dumps(base))  # a deep copy of plain values
    known = set(fields_lib.field_names())
    for field, value in sorted(overrides.items(), key=lambda pair: pair[0].count(".")):  # a group before its fields
        if field not in known:
            raise fields_lib.unknown_field(field)
        *path, last = field.split(".")
        group = values
        for part in path:
            group = group[part]
            if group is None:
                raise UserError(f"config.{field}: config.{part} is None, so it has no such field")
        group[last] = _plain(value)
    return values


def _plain(value: Any) -> Any:
    """A NumPy scalar (of an axis of np.logspace) as Python's."""
    return value.item() if isinstance(value, np.generic) else value
