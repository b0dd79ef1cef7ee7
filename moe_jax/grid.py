"""Grids as values: combinators that build cells (dicts of overrides), and cells -> runs with names and hashes.

A cell maps dotted config fields to values, `{"model.d_model": 32, "train.tokens": 96_000}`; `{"moe": None}` is a dense
twin. Three more keys are no fields: `"name"` names the run itself where naming.py cannot tell two cells apart;
`"refused"` says why the cell is not to be run; `"derived"` lists fields that follow from others by a rule, so that
names need not carry them. No I/O.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from moe_jax import config_fields, counts
from moe_jax.config import Config
from moe_jax.counts import Counts
from moe_jax.errors import UserError
from moe_jax.naming import run_name
from moe_jax.tables import count

Cell = dict[str, Any]
_NO_FIELDS = ("name", "refused", "derived")

# What changes how a run is done but not what it gives.
_NOT_HASHED = ("mesh", "checkpoint", "profile", "sweep", "tensorboard", "wandb")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a grid: its name, what its cell overrides, and its whole config."""

    name: str
    overrides: Mapping[str, Any]
    config: Config


def axis(field: str, values: Iterable[Any]) -> list[Cell]:
    """One cell a value."""
    return [{field: value} for value in values]


def product(*grids: Sequence[Cell]) -> list[Cell]:
    """Every combination of one cell of each grid; the last varies fastest."""
    return [_merge(cells) for cells in itertools.product(*grids)]


def zipped(*grids: Sequence[Cell]) -> list[Cell]:
    """Cells side by side; the grids must be equally long."""
    return [_merge(cells) for cells in zip(*grids, strict=True)]


def chain(*grids: Sequence[Cell]) -> list[Cell]:
    """The cells of all grids, one after the other."""
    return list(itertools.chain(*grids))


def prefix(group: str, cells: Sequence[Cell]) -> list[Cell]:
    """Fields of one group without its name: prefix("model", [{"d_model": 32}]) sets model.d_model."""
    return [{f if f in _NO_FIELDS else f"{group}.{f}": value for f, value in cell.items()} for cell in cells]


def filter(cells: Sequence[Cell], keep: Callable[[Cell], bool], reason: str) -> list[Cell]:
    """Refuses the cells that are not to be kept; `plan`, `sweep` and `submit` say how many, and why."""
    return [cell if "refused" in cell or keep(cell) else cell | {"refused": reason} for cell in cells]


def possible(base: Mapping[str, Any], cells: Sequence[Cell]) -> list[Cell]:
    """Refuses the cells that config.py refuses, with its sentence, where `expand` would refuse the grid."""
    out = []
    for cell in cells:
        try:
            config_of(base, cell)
            out.append(cell)
        except UserError as e:
            out.append(cell | {"refused": cell.get("refused", str(e))})
    return out


def rule(
    base: Mapping[str, Any], cells: Sequence[Cell], field: str, value: Callable[[Config, Counts], Any]
) -> list[Cell]:
    """Sets a field by a rule of N, D, E and whatever else the cell's config and its counts say. Embeddings are not
    counted where the config leaves the vocabulary to the store."""
    out = []
    for cell in cells:
        if "refused" not in cell:
            config = config_of(base, cell)
            derived = value(config, counts.count_parameters(config, config.model.vocabulary_size or 0))
            cell = _merge([cell, {field: derived, "derived": (field,)}])
        out.append(cell)
    return out


def iso_flop(
    base: Mapping[str, Any], cells: Sequence[Cell], budgets: Sequence[float], flops: str, vocabulary_size: int
) -> list[Cell]:
    """Every cell at every budget: D is what the budget pays for, in whole steps (at least one), by the count of
    counts.Flops named `flops`; the budgets vary slowest."""
    out = []
    for budget in budgets:
        for cell in cells:
            if "refused" not in cell:
                config = config_of(base, cell)
                a_step = getattr(counts.count_flops(config, vocabulary_size, config.batch_tokens), flops)
                cell = _merge([cell, {"train.tokens": max(1, round(budget / a_step)) * config.batch_tokens}])
            out.append(cell)
    return out


def _merge(cells: Iterable[Cell]) -> Cell:
    merged: Cell = {}
    for cell in cells:
        for field, value in cell.items():
            if field == "derived":
                merged[field] = (*merged.get(field, ()), *value)
            elif field == "refused":
                merged.setdefault(field, value)
            elif field in merged and merged[field] != value:
                raise UserError(f"the grid sets {field} twice in one cell, to {merged[field]!r} and {value!r}")
            else:
                merged[field] = value
    return merged


def refusals(cells: Sequence[Cell]) -> list[str]:
    """One sentence a reason for which cells are not to be run."""
    by_reason: dict[str, list[Cell]] = {}
    for cell in cells:
        if "refused" in cell:
            by_reason.setdefault(cell["refused"], []).append(cell)
    return [
        f"left out of the grid: {count(len(some), 'cell')}, {_shown(some[0])}{', …' if len(some) > 1 else ''}: {reason}"
        for reason, some in by_reason.items()
    ]


def _shown(cell: Cell) -> str:
    return " ".join(f"{field}={value}" for field, value in cell.items() if field not in _NO_FIELDS)


def config_of(base: Mapping[str, Any], cell: Cell) -> Config:
    """The whole config of a cell. Raises UserError."""
    return config_fields.from_dict(_overlay(base, cell))


def expand(base: Mapping[str, Any], cells: Sequence[Cell] | None) -> list[Run]:
    """The runs of a base config (a nested dict) and those of its cells that are not refused; no cells: one run, the
    base itself.

    Raises UserError on a cell that config.py refuses, on two cells with one name, and where none is left."""
    runs: dict[str, Run] = {}
    for i, cell in enumerate(cells if cells is not None else [{}]):
        if "refused" in cell:
            continue
        where = f"cell {i + 1} of the grid, {cell}: " if cell else ""
        try:
            config = config_of(base, cell)
            fields = {field: value for field, value in cell.items() if field not in cell.get("derived", ())}
            overrides = {field: _plain(value) for field, value in cell.items() if field != "derived"}
            run = Run(run_name(config, fields), overrides, config)
        except UserError as e:
            raise UserError(f"{where}{e}") from e
        if run.name in runs:
            raise UserError(
                f"{where}its name {run.name} is taken by {dict(runs[run.name].overrides)}; set 'name' in one of them"
            )
        runs[run.name] = run
    if not runs:
        raise UserError(f"the grid has no cell that is to be run; {'; '.join(refusals(cells))}")
    return list(runs.values())


def _overlay(base: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    values = json.loads(json.dumps(base))  # a deep copy of plain values
    known = set(config_fields.field_names())
    for field, value in sorted(cell.items(), key=lambda pair: pair[0].count(".")):  # a group before its fields
        if field in _NO_FIELDS:
            continue
        if field not in known:
            raise config_fields.unknown_field(field)
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


def config_hash(config: Config, store_sha256: str, vocabulary_size: int) -> str:
    """16 hex digits over what defines the result (design §3), and nothing else: not mesh, microbatches, checkpoints,
    logging."""
    return _hashed(_defining(config, store_sha256, vocabulary_size))


def trunk_hash(config: Config, store_sha256: str, vocabulary_size: int) -> str:
    """As `config_hash`, but over what all branches of a trunk have in common, so that it may get longer ones."""
    values = _defining(config, store_sha256, vocabulary_size)
    del values["train"]["tokens"]
    return _hashed(values)


def _defining(config: Config, store_sha256: str, vocabulary_size: int) -> dict[str, Any]:
    values = config_fields.to_dict(config)
    for group in _NOT_HASHED:
        del values[group]
    for field in ("microbatches", "log_every_steps", "log_layers"):
        del values["train"][field]
    for field in ("remat", "logits_positions"):
        del values["model"][field]
    values["data"] = {k: values["data"][k] for k in ("sequence_length", "repeat", "windows", "mask_documents")}
    values["data"] |= {"store_sha256": store_sha256, "vocabulary_size": vocabulary_size}
    return values


def _hashed(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
