"""Grids as values: combinators that build cells (dicts of overrides), and cells -> runs with names and hashes.

A cell maps dotted config fields to values, `{"model.d_model": 32, "train.tokens": 96_000}`; `{"moe": None}` is a dense
twin; `"name"` names the run itself where the rule below cannot tell two cells apart. No I/O.
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moe_jax import config as config_lib
from moe_jax import counts
from moe_jax.config import Config
from moe_jax.errors import UserError

Cell = dict[str, Any]

# Axes that a name carries always (n, d, g, s), and these where a cell sets them.
_SUFFIXES = {
    "moe.expansion_rate": "e",
    "moe.n_experts": "e",
    "moe.active_rate": "k",
    "moe.top_k": "k",
    "train.batch_sequences": "b",
    "optim.learning_rate": "lr",
    "optim.weight_decay": "wd",
    "moe.capacity_factor": "c",
    "moe.load_balance_weight": "lb",
}
_MAX_NAME = 28
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

# What changes how a run is done but not what it gives.
_NOT_HASHED = ("mesh", "checkpoint", "profile", "tensorboard", "wandb")


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


def _merge(cells: Iterable[Cell]) -> Cell:
    merged: Cell = {}
    for cell in cells:
        for field, value in cell.items():
            if field in merged and merged[field] != value:
                raise UserError(f"the grid sets {field} twice in one cell, to {merged[field]!r} and {value!r}")
            merged[field] = value
    return merged


def expand(base: Mapping[str, Any], cells: Sequence[Cell] | None) -> list[Run]:
    """The runs of a base config (a nested dict) and its cells; no cells: one run, the base itself.

    Raises UserError on a cell that config.py refuses (naming it) and on two cells with one name."""
    runs: dict[str, Run] = {}
    for i, cell in enumerate(cells if cells is not None else [{}]):
        where = f"cell {i + 1} of the grid, {cell}: " if cell else ""
        try:
            config = config_lib.from_dict(_overlay(base, cell))
            run = Run(run_name(config, cell), cell, config)
        except UserError as e:
            raise UserError(f"{where}{e}") from e
        if run.name in runs:
            raise UserError(
                f"{where}its name {run.name} is taken by {dict(runs[run.name].overrides)}; set 'name' in one of them"
            )
        runs[run.name] = run
    return list(runs.values())


def _overlay(base: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    values = json.loads(json.dumps(base))  # a deep copy of plain values
    known = set(config_lib.field_names())
    for field, value in cell.items():
        if field == "name":
            continue
        if field not in known:
            raise config_lib.unknown_field(field)
        *path, last = field.split(".")
        group = values
        for part in path:
            group = group[part]
            if group is None:
                raise UserError(f"config.{field}: config.{part} is None, so it has no such field")
        group[last] = value
    return values


def run_name(config: Config, cell: Mapping[str, Any]) -> str:
    """`n25m-d16b-g8-s0`: n_active_nonemb, tokens, granularity (or `dense`), what else the cell sets, and the seed.

    A name depends on the run alone, so a grid that is extended later keeps the names it has."""
    if "name" in cell:
        return _checked_name(cell["name"])
    return _checked_name("-".join(_name_parts(config, cell)))


def trunk_name(config: Config, cell: Mapping[str, Any], common: str) -> str:
    """`n25m-g8-s0`: as run_name without the tokens; of runs that name themselves, a name from the hash `common` of
    what they have in common."""
    if "name" in cell:
        return f"trunk-{common[:8]}"
    n, _, *rest = _name_parts(config, cell)
    return _checked_name("-".join([n, *rest]))


def _name_parts(config: Config, cell: Mapping[str, Any]) -> list[str]:
    # Embeddings are not counted in n, so any vocabulary gives the same name.
    parts = [f"n{_short(counts.count_parameters(config, 0).n_active_nonemb)}", f"d{_short(config.train.tokens)}"]
    parts.append("dense" if config.moe is None else f"g{_short(config.moe.granularity)}")
    for field, letter in _SUFFIXES.items():
        if field in cell:
            parts.append(f"{letter}{_short(cell[field])}")
    if cell.get("moe.router"):
        parts.append({"token_choice": "tc", "expert_choice": "ec"}[config.moe.router])
    parts.append(f"s{config.seed}")
    return parts


def _checked_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise UserError(
            f"the run name {name!r} must be at most {_MAX_NAME} characters: small letters, digits and inner dashes, "
            "a letter first; set 'name' in the grid's cell"
        )
    return name


def _short(x: float) -> str:
    """Two digits, enough to tell cells apart: 25165824 -> 25m, 6144 -> 6p1k; below 1 without the minus, 0.0025 ->
    2p5e3."""
    for letter, unit in (("t", 1e12), ("b", 1e9), ("m", 1e6), ("k", 1e3)):
        if x >= 0.9995 * unit:
            scaled = x / unit
            return (f"{scaled:.2g}" if scaled < 9.95 else f"{scaled:.0f}").replace(".", "p") + letter
    if x >= 1 or x == 0:
        return f"{x:.4g}".replace(".", "p")
    mantissa, exponent = f"{x:.2e}".split("e")
    return f"{float(mantissa):g}".replace(".", "p") + f"e{-int(exponent)}"


def config_hash(config: Config, store_sha256: str, vocabulary_size: int) -> str:
    """16 hex digits over what defines the result (design §3), and nothing else: not mesh, microbatches, checkpoints,
    logging."""
    values = config_lib.to_dict(config)
    for group in _NOT_HASHED:
        del values[group]
    for field in ("microbatches", "log_every_steps", "log_layers"):
        del values["train"][field]
    for field in ("remat", "logits_positions"):
        del values["model"][field]
    values["data"] = {k: values["data"][k] for k in ("sequence_length", "repeat", "windows", "mask_documents")}
    values["data"] |= {"store_sha256": store_sha256, "vocabulary_size": vocabulary_size}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
