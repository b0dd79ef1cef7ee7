"""Checks of a config's values, each with the one sentence that refuses a bad one."""

import math
import typing
from typing import Any

from moe_jax.errors import UserError


def refuse(field: str, value: Any, rule: str) -> typing.NoReturn:
    """Raises UserError with the sentence of a bad value: field, value, rule."""
    raise UserError(f"config.{field} = {value!r}: {rule}")


def positive(group: str, owner: Any, *fields: str) -> None:
    """Refuses the first of the group's fields that is given and is not above 0."""
    for field in fields:
        value = getattr(owner, field)
        if value is not None and not value > 0:
            refuse(f"{group}.{field}", value, "must be above 0")


def not_negative(group: str, owner: Any, *fields: str) -> None:
    """Refuses the first of the group's fields that is given and is below 0."""
    for field in fields:
        value = getattr(owner, field)
        if value is not None and not value >= 0:
            refuse(f"{group}.{field}", value, "must not be below 0")


def one_of(field: str, value: Any, *choices: Any) -> None:
    """Refuses a value that is none of the choices."""
    if value not in choices:
        refuse(field, value, f"must be one of {', '.join(map(repr, choices))}")


def is_whole(x: float) -> bool:
    """Whether x is a whole number of at least 1, up to rounding."""
    return math.isclose(x, round(x), rel_tol=1e-9) and round(x) >= 1


def tidy(x: float) -> float | int:
    """4.0 -> 4, so that a value is spelled in one way in hashes and tables."""
    return round(x) if math.isclose(x, round(x), rel_tol=1e-9) else x
