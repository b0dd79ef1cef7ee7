"""A nested dict -> a checked Config, and back; the names of all fields."""

import dataclasses
import difflib
import functools
import marshal
import sys
import types
import typing
from collections.abc import Mapping
from typing import Any

from moe_jax.config.checks import refuse, tidy
from moe_jax.config.schema import Config
from moe_jax.errors import UserError


def from_dict(values: Mapping[str, Any]) -> Config:
    """The Config of a nested dict (a ConfigDict's, or run.json's). Raises UserError on the first field that is
    missing, unknown or wrong."""
    return _build(Config, values, "")


def to_dict(config: Config) -> dict[str, Any]:
    """A nested dict that JSON can hold and `from_dict` takes back."""
    return dataclasses.asdict(config)


@functools.cache
def field_names() -> tuple[str, ...]:
    """Every dotted field name, groups included: model, model.d_model, …"""
    names = []

    def walk(cls, prefix):
        for field in dataclasses.fields(cls):
            names.append(prefix + field.name)
            if inner := _groups_of(cls).get(field.name):
                walk(inner, prefix + field.name + ".")

    walk(Config, "")
    return tuple(names)


def unknown_field(name: str) -> UserError:
    """The sentence for a field that does not exist, with the nearest that does."""
    near = _nearest(name)
    hint = f"; did you mean config.{near}?" if near else "; configs/common.py lists the fields"
    return UserError(f"config.{name}: there is no such field{hint}")


def _nearest(name: str) -> str | None:
    """The field that was probably meant: one of the same group first, by its initials (lr) or its spelling."""
    group, _, leaf = name.rpartition(".")
    leaves = [field for field in field_names() if field not in _groups()]
    inside = {field.rpartition(".")[2]: field for field in leaves if field.rpartition(".")[0] == group}
    by_initials = [field for last, field in inside.items() if "".join(word[0] for word in last.split("_")) == leaf]
    begun = [field for last, field in inside.items() if leaf and last.startswith(leaf)]
    spelled = [inside[last] for last in difflib.get_close_matches(leaf, inside, n=1, cutoff=0.5)]
    if near := [*by_initials, *begun, *spelled]:
        return near[0]
    everywhere = difflib.get_close_matches(name, leaves, n=1, cutoff=0.6)
    return everywhere[0] if everywhere else None


@functools.cache
def _groups() -> frozenset[str]:
    return frozenset(field.rpartition(".")[0] for field in field_names())


@functools.cache
def _type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


@functools.cache
def _groups_of(cls: type) -> dict[str, type]:
    """The fields of a dataclass that are dataclasses themselves, with their classes."""
    inner = {name: _dataclass_of(hint) for name, hint in _type_hints(cls).items()}
    return {name: group for name, group in inner.items() if group}


def _dataclass_of(hint: Any) -> type | None:
    options = typing.get_args(hint) or (hint,)
    return next((o for o in options if dataclasses.is_dataclass(o)), None)


def _build(cls: type, values: Mapping[str, Any], prefix: str) -> Any:
    if not isinstance(values, Mapping):
        refuse(prefix.rstrip("."), values, "must be a group of fields")
    hints, groups = _type_hints(cls), _groups_of(cls)
    for name in values:
        if name not in hints:
            raise unknown_field(prefix + name)
    built = {}
    for name, hint in hints.items():
        if name not in values:
            raise UserError(f"config.{prefix}{name}: is missing; start from configs/common.py, which sets every field")
        if name in groups and values[name] is not None:
            built[name] = _group(groups[name], values[name], f"{prefix}{name}.")
        else:
            built[name] = _coerce(values[name], hint, prefix + name)
    return cls(**built)


_MAX_INT = 2**53  # a float holds every whole number up to here, and so do all counts that follow from a config
_known_groups: dict[tuple[type, bytes], Any] = {}  # the runs of a sweep have few different groups, and share them


def _group(cls: type, values: Any, prefix: str) -> Any:
    """A group of fields, which is built and checked once however many configs have it."""
    try:
        key = cls, marshal.dumps(values, 2)  # which tells 1 from 1.0 and from True, and equal values from nothing else
    except ValueError:  # values that no JSON has
        return _build(cls, values, prefix)
    if key not in _known_groups:
        _known_groups[key] = _build(cls, values, prefix)
    return _known_groups[key]


def _texts(value: Any, field: str) -> tuple[str, ...]:
    """A list of texts; one text has commas between them."""
    texts = value.split(",") if isinstance(value, str) else value
    if not isinstance(texts, (tuple, list)) or not all(isinstance(text, str) for text in texts):
        refuse(field, value, "must be texts: ('a', 'b') or a,b")
    return tuple(text for text in texts if text)


_KINDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}


def _coerce(value: Any, hint: Any, field: str) -> Any:
    """The value in its declared type: where that is int, 4.0 and 1e6 become 4 and 1,000,000. Any other value
    of another type is refused."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    option = next(o for o in options if o is not type(None))
    if typing.get_origin(option) is tuple:
        if typing.get_args(option) == (str, ...):
            return _texts(value, field)
        length = len(typing.get_args(option))
        if not isinstance(value, (tuple, list)) or len(value) != length:
            refuse(field, value, f"must be {length} numbers")
        return tuple(_coerce(v, float, field) for v in value)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    is_finite = is_number and abs(value) <= sys.float_info.max
    if option is int and is_finite and value == int(value):
        if abs(value) > _MAX_INT:
            refuse(field, value, "must be at most 2^53")
        return int(value)
    if option is float and is_finite:
        return tidy(value)
    if option in (str, bool) and isinstance(value, option):
        return value
    refuse(field, value, f"must be {_KINDS.get(option, 'given')}{' or None' if len(options) > 1 else ''}")
