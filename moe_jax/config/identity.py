"""When two runs are the same: in their result, their trunk, their pack, their compiled step.

Each identity is made of the fields that say they enter it (enters.py), and of the number of token ids. What is kept on
disk is also identified by the source of the router, where that is the user's own.
"""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import marshal
import typing
from pathlib import Path
from typing import Any

from moe_jax.config import own_modules
from moe_jax.config.checks import refuse
from moe_jax.config.enters import PACK, RESULT, STEP, TRUNK, Enters, entered_by
from moe_jax.config.schema import Config


def config_hash(config: Config, store_sha256: str, vocab_size: int) -> str:
    """16 hex digits over what defines the run's result: the fields of RESULT and the token store's content.

    Raises UserError where the module of a user's router cannot be found."""
    return _digest(_text(config, RESULT, vocab_size), store_sha256, _router_source(config))


def trunk_hash(config: Config, store_sha256: str, vocab_size: int) -> str:
    """16 hex digits over what all branches of a trunk have in common, those of a longer grid too. Raises as
    `config_hash`."""
    return _digest(trunk_key(config, vocab_size), store_sha256, _router_source(config))


def trunk_key(config: Config, vocab_size: int) -> str:
    """Equal for the runs of one sweep that may share a trunk: they differ in D, and in how they are done."""
    return _text(config, TRUNK, vocab_size)


def pack_key(config: Config, vocab_size: int) -> str:
    """Equal for the runs of one sweep that one program can train together: they differ in seed and learning rate."""
    return _text(config, PACK, vocab_size)


def defining_values(config: Config) -> dict[str, Any]:
    """The fields that define the result, as a nested dict."""
    return _entering(config, RESULT)


@dataclasses.dataclass(frozen=True)
class StepShape:
    """What a train step is compiled from, apart from the machine and the mesh."""

    config: Config  # of one of the runs that have this step
    vocab_size: int

    @property
    def key(self) -> str:
        """Equal for runs that have this step: D, learning rate, warm-up and seed are inputs of the step. Raises
        as `config_hash`."""
        return json.dumps([_text(self.config, STEP, self.vocab_size), _router_source(self.config)])

    @property
    def id(self) -> str:
        """16 hex digits of the key, for files."""
        return _digest(self.key)


def _text(config: Config, identity: Enters, vocab_size: int) -> str:
    """All fields that enter the identity, as JSON in one spelling: that of json.dumps(…, sort_keys=True)."""
    texts = {}
    for name, is_group, enters in _fields(Config, identity):
        value = getattr(config, name)
        if is_group and value is not None:
            # The config may leave the vocabulary's size to the store.
            texts[name] = _group_text(value, identity, {"vocab_size": vocab_size} if name == "model" else {})
        elif enters:
            texts[name] = json.dumps(value)
    return "{" + ", ".join(f'"{name}": {texts[name]}' for name in sorted(texts)) + "}"


_known_texts: dict[tuple[type, int, bytes], str] = {}  # the runs of a sweep have few different groups


def _group_text(group: Any, identity: Enters, instead: dict[str, Any]) -> str:
    """A group's fields that enter the identity, some with another value `instead`, as JSON."""
    key = type(group), identity.value, marshal.dumps((vars(group), instead), 2)  # which tells 1 from 1.0 and from True
    if key not in _known_texts:
        _known_texts[key] = json.dumps(_entering(group, identity) | instead, sort_keys=True)
    return _known_texts[key]


def _entering(group: Any, identity: Enters) -> dict[str, Any]:
    """A group's fields that enter the identity, and those of the groups in it."""
    values = {}
    for name, is_group, enters in _fields(type(group), identity):
        value = getattr(group, name)
        if is_group and value is not None:
            values[name] = _entering(value, identity)
        elif enters:
            values[name] = value
    return values


@functools.cache
def _fields(cls: type, identity: Enters) -> tuple[tuple[str, bool, bool], ...]:
    """(field, whether it is a group of fields, whether it enters the identity), of each field that may enter it."""
    found = []
    for field in dataclasses.fields(cls):
        is_group = any(map(dataclasses.is_dataclass, typing.get_args(field.type) or (field.type,)))
        # A group that every config has need not say so itself: its fields do.
        enters = identity in entered_by(field) if not dataclasses.is_dataclass(field.type) else False
        if is_group or enters:
            found.append((field.name, is_group, enters))
    return tuple(found)


def _digest(*texts: str) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:16]


def _router_source(config: Config) -> str:
    """SHA-256 of the file of a user's router, which is not imported; empty where the router is ours."""
    module = None if config.moe is None else config.moe.router_module
    if module is None:
        return ""
    own_modules.look_in_current_folder()
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.has_location or not Path(spec.origin).is_file():
        refuse(
            "moe.router", config.moe.router,
            f"Python finds no file of the module {module}; start in its folder, or name that in PYTHONPATH",
        )  # fmt: skip
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()
