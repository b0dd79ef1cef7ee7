"""Records in JSON files: a reader believes a field only where its value is of the declared type."""

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from moe_jax.errors import UserError
from moe_jax.text import number

T = TypeVar("T")
_MAX = 1e60  # no count or measure is that large, and products of two of them are still finite


def read(cls: type[T], values: Mapping[str, Any], **known: Any) -> T:
    """A record from a JSON object. Fields in `known` are given; fields that the record does not have are ignored.

    Raises UserError on the first field that is missing or not of its type."""
    found = dict(known)
    for name, group, test, made in _fields(cls):
        if name in known:
            continue
        value = values.get(name)
        if group is not None and isinstance(value, Mapping):
            found[name] = read(group, value)
        elif test(value):
            found[name] = made(value)
        else:
            raise UserError(f"{name} is {value!r:.40}")
    return cls(**found)


def read_leniently(cls: type[T], values: Mapping[str, Any], **known: Any) -> T:
    """As `read`, of a record whose fields all have defaults: a field that is not of its type keeps its default."""
    found = {}
    for name, _, test, made in _fields(cls):
        if name in values and test(values[name]):
            found[name] = made(values[name])
    return cls(**found | known)


def is_of(value: Any, hint: Any, signed: bool = False) -> bool:
    """Whether a JSON value is of a declared type: str, an enum of strings, int, float, dict[str, X], tuple[X, …], or
    X | None.

    Numbers are finite, not above 1e60 and, unless `signed`, not negative."""
    return _test_of(hint, signed)(value)


# A sweep has tens of thousands of records: what a type asks of a value is worked out once.
@functools.cache
def _fields(cls: type) -> list[tuple[str, type | None, Callable[[Any], bool], Callable[[Any], Any]]]:
    """(name, its class where it is a record itself, whether a value is of its type, what makes the value of it) of each
    field."""
    return [
        (name, hint if dataclasses.is_dataclass(hint) else None, _test_of(hint), _typed(hint))
        for name, hint in typing.get_type_hints(cls).items()
    ]


@functools.cache
def _test_of(hint: Any, signed: bool = False) -> Callable[[Any], bool]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in (Any, object):
        return lambda value: True
    if isinstance(hint, types.UnionType):
        return functools.reduce(_either, (_test_of(option, signed) for option in inner))
    if hint is types.NoneType:
        return lambda value: value is None
    if origin in (dict, Mapping):
        test = _test_of(inner[1], signed)
        return lambda value: isinstance(value, dict) and all(map(test, value.values()))
    if origin is tuple:
        return _test_of_list(inner, signed)
    if hint is int:
        return lambda value: isinstance(value, int) and _is_number(value, signed)
    if hint is float:
        return lambda value: _is_number(value, signed)
    if issubclass(hint, enum.StrEnum):
        return lambda value: isinstance(value, str) and value in [*hint]
    return lambda value: isinstance(value, hint)


def _test_of_list(kinds: tuple[Any, ...], signed: bool) -> Callable[[Any], bool]:
    """The test of the list that JSON has for a tuple[X, Y], or for a tuple[X, ...]."""
    tests = [_test_of(kind, signed) for kind in kinds if kind is not Ellipsis]
    if kinds[-1] is Ellipsis:
        return lambda value: isinstance(value, list) and all(map(tests[0], value))
    return lambda value: (
        isinstance(value, list)
        and len(value) == len(tests)
        and all(test(item) for test, item in zip(tests, value, strict=True))
    )


def _either(a: Callable[[Any], bool], b: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: a(value) or b(value)


def _is_number(value: Any, signed: bool) -> bool:
    if type(value) is not float:
        value = number(value)
    return value is not None and (-_MAX if signed else 0) <= value <= _MAX  # False for NaN


@functools.cache
def _typed(hint: Any) -> Callable[[Any], Any]:
    """What makes a value of the declared type: strings of an enum its members, a list a tuple where one is declared."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    for option in options:
        if typing.get_origin(option) is tuple:
            return lambda value: tuple(value) if isinstance(value, list) else value
        if isinstance(option, type) and issubclass(option, enum.StrEnum):
            return lambda value: option(value) if isinstance(value, str) else value
    return lambda value: value
