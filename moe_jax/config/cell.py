"""A cell of a grid: the fields that one run sets."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from moe_jax.errors import UserError

_ATTRIBUTES = ("name", "refused", "derived")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of a grid: the fields that its run overrides, `{"model.d_model": 32, "moe": None}`.

    Raises UserError where a value has the wrong type."""

    overrides: Mapping[str, Any]  # dotted field -> value
    name: str | None = None  # of the run; None: names.run_name makes one from the config
    refused: str | None = None  # why the cell is not to be run
    derived: tuple[str, ...] = ()  # fields that follow from others by a rule, so that names need not carry them

    def __post_init__(self):
        if not isinstance(self.overrides, Mapping):
            raise UserError(f"a cell must be a dict of overrides, not {self.overrides!r:.200}")
        if not all(isinstance(field, str) for field in self.overrides):
            raise UserError(f'a cell\'s fields must be texts, as "train.tokens"; it is {dict(self.overrides)!r:.200}')
        for field in _ATTRIBUTES:
            if field in self.overrides:
                raise UserError(f"{field!r} is no field of a config: write grid.Cell({{…}}, {field}=…)")
        if not isinstance(self.refused, (str, type(None))):
            raise UserError(f"a cell's 'refused' must be the reason, a text, not {self.refused!r:.40}")
        if not isinstance(self.derived, (tuple, list)):
            raise UserError(f"a cell's 'derived' must list fields, not {self.derived!r:.40}")

    def __or__(self, other: "Cell | Mapping[str, Any]") -> "Cell":
        """Both in one cell, refused if one of them is. Raises UserError where they set a field to different values."""
        other = as_cell(other)
        for field, value in other.overrides.items():
            if field in self.overrides and self.overrides[field] != value:
                raise _set_twice(field, self.overrides[field], value)
        if self.name is not None and other.name is not None and self.name != other.name:
            raise _set_twice("the name", self.name, other.name)
        return Cell(
            {**self.overrides, **other.overrides},
            self.name if other.name is None else other.name,
            other.refused if self.refused is None else self.refused,
            (*self.derived, *other.derived),
        )

    def __str__(self) -> str:
        """model.d_model=16 moe.granularity=1"""
        return " ".join(f"{field}={value}" for field, value in self.overrides.items())


def as_cell(cell: Cell | Mapping[str, Any]) -> Cell:
    """The cell of a plain dict of overrides; a Cell as it is. Raises UserError."""
    return cell if isinstance(cell, Cell) else Cell(cell)


def _set_twice(what: str, first: Any, second: Any) -> UserError:
    return UserError(f"the grid sets {what} twice in one cell, to {first!r} and {second!r}")
