"""A Config as a nested dict, and what its fields are called and may hold."""

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from moe_jax.config import Config, refuse, tidy
from moe_jax.errors import UserError


def from_dict(values: Mapping[str, Any]) -> Config:
    """The dataclasses of a nested dict (a ConfigDict's, or run.json's). Raises UserError on the first thing wrong."""
    return _build(Config, values, "")


def to_dict(config: Config) -> dict[str, Any]:
    """A nested dict that JSON can hold and `from_dict` takes back."""
    return dataclasses.asdict(config)


def field_names(path: str = "") -> list[str]:
    """Every dotted field name, to name the nearest one to a misspelt one."""
    names = []

    def walk(cls, prefix):
        for field in dataclasses.fields(cls):
            inner = _dataclass_of(typing.get_type_hints(cls)[field.name])
            names.append(prefix + field.name)
            if inner:
                walk(inner, prefix + field.name + ".")

    walk(Config, path)
    return names


def unknown_field(name: str) -> UserError:
    """The sentence for a field that does not exist, with the nearest that does."""
    near = difflib.get_close_matches(name, field_names(), n=1, cutoff=0.5)
    hint = f"; did you mean config.{near[0]}?" if near else "; configs/common.py lists the fields"
    return UserError(f"config.{name}: there is no such field{hint}")


def _dataclass_of(hint: Any) -> type | None:
    options = typing.get_args(hint) or (hint,)
    return next((o for o in options if dataclasses.is_dataclass(o)), None)


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    if not isinstance(values, Mapping):
        refuse(prefix.rstrip("."), values, "must be a group of fields")
    hints = typing.get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise unknown_field(prefix + name)
    built = {}
    for name, hint in hints.items():
        if name not in values:
            raise UserError(f"config.{prefix}{name}: is missing; start from configs/common.py, which sets every field")
        inner = _dataclass_of(hint)
        if inner and values[name] is not None:
            built[name] = _build(inner, values[name], f"{prefix}{name}.")
        else:
            built[name] = _coerce(values[name], hint, prefix + name)
    return cls(**built)


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}


def _coerce(value: Any, hint: Any, field: str) -> Any:
    """The value as its declared type: 4 and 4.0 and 1e6 are fine where they mean the same; anything else is refused."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    option = next(o for o in options if o is not type(None))
    if typing.get_origin(option) is tuple:
        length = len(typing.get_args(option))
        if not isinstance(value, (tuple, list)) or len(value) != length:
            refuse(field, value, f"must be {length} numbers")
        return tuple(_coerce(v, float, field) for v in value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    is_finite = is_number and abs(value) <= sys.float_info.max
    if option is int and is_finite and value == int(value):
        return int(value)
    if option is float and is_finite:
        return tidy(value)
    if option in (str, bool) and isinstance(value, option):
        return value
    refuse(field, value, f"must be {_KINDS.get(option, 'given')}{' or None' if len(options) > 1 else ''}")
