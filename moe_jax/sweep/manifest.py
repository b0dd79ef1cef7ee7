"""The runs of a sweep with their configs, counts and hashes: sweep.json as a value."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from moe_jax import records
from moe_jax.config import counts, fields
from moe_jax.config.checks import refuse
from moe_jax.config.grid import Run
from moe_jax.config.identity import config_hash, defining_values
from moe_jax.config.names import check_name
from moe_jax.config.schema import Config
from moe_jax.errors import UserError

Rules = dict[str, dict[str, str]]  # field -> the law that gave its value: name, file or published set, SHA-256

_MAX_VOCABULARY = 2**32  # a store's arrays are uint16 or uint32


@dataclasses.dataclass(frozen=True)
class StoreIdentity:
    """The token store that a sweep was made for: where it is, and its content."""

    path: str
    sha256: str
    vocab_size: int
    # Tokens of its training part; None where there is no store yet, or a version wrote the file that did not say.
    train_tokens: int | None = dataclasses.field(default=None, kw_only=True)


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep, with what is known before it is trained."""

    name: str
    overrides: dict[str, Any]
    config: Config
    counts: counts.RunCounts
    config_hash: str
    rules: Rules | None = None  # of the fields that a law set


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The content of sweep.json."""

    sweep: str  # at most 7 characters, of the job names
    config_flags: str  # the flags that the sweep was made with
    store: StoreIdentity
    runs: tuple[PlannedRun, ...]

    def run(self, name: str) -> PlannedRun:
        """The run of this name. Raises UserError where the sweep has none."""
        for run in self.runs:
            if run.name == name:
                return run
        has = ", ".join(run.name for run in self.runs[:4]) + (", …" if len(self.runs) > 4 else "")
        raise UserError(f"--run={name}: the sweep has no such run; it has {has}")


def plan_runs(
    runs: Sequence[Run], store: StoreIdentity, rules: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[PlannedRun, ...]:
    """Runs with their counts and hashes for a store's vocabulary, and the rules that set fields of theirs. Raises
    UserError where a config's vocabulary is too small."""
    planned, ruled = [], {field: dict(rule) for field, rule in (rules or {}).items()} or None
    for run in runs:
        V = _vocab_size(run.config, store)
        hashed, counted = config_hash(run.config, store.sha256, V), counts.count_run(run.config, V)
        planned.append(PlannedRun(run.name, dict(run.overrides), run.config, counted, hashed, ruled))
    return tuple(planned)


def _vocab_size(config: Config, store: StoreIdentity) -> int:
    if not 0 < store.vocab_size <= _MAX_VOCABULARY:
        raise UserError(f"store.vocab_size is {store.vocab_size!r:.40}; a token id has at most 32 bits")
    V = config.model.vocab_size or store.vocab_size
    if store.vocab_size > V:
        refuse("model.vocab_size", V, f"the store {store.path} has token ids up to {store.vocab_size}")
    return V


def extended(old: Manifest, new: Manifest, whole: bool, where: str) -> Manifest:
    """`old` with the runs of `new`, by the rules of Workdir.accept. Raises UserError, which says `where` the old one
    is."""
    if old.store.sha256 != new.store.sha256:
        raise UserError(f"{where}: holds a sweep on another token store ({old.store.path}); choose another")
    added = {run.name: run for run in new.runs}
    for run in old.runs:
        if run.name in added and added[run.name].config_hash != run.config_hash:
            raise UserError(
                f"{where}: holds a sweep whose run {run.name} has another config"
                f"{_first_difference(run.config, added[run.name].config)}; choose another workdir"
            )
        if whole and run.name not in added:
            raise UserError(
                f"{where}: holds a sweep whose run {run.name} is not in this grid; extend its grid, or choose another "
                "workdir"
            )
    kept = tuple(dataclasses.replace(run, config=added.pop(run.name, run).config) for run in old.runs)
    return dataclasses.replace(old, runs=kept + tuple(added.values()))


def check_routers(manifest: Manifest) -> None:
    """Raises UserError where the source of a user's router is not the one that the sweep began with."""
    for run in manifest.runs:
        if _has_users_router(run.config) and run.config_hash != config_hash(
            run.config, manifest.store.sha256, run.counts.vocab_size
        ):
            raise UserError(
                f"{run.name}: the source of its router {run.config.moe.router} has changed since the sweep began; put "
                "it back, or choose another workdir"
            )


def _has_users_router(config: Config) -> bool:
    return config.moe is not None and config.moe.router_module is not None


def _first_difference(a: Config, b: Config) -> str:
    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        out = {}
        for key, value in values.items():
            out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return out

    old, new = flat(defining_values(a)), flat(defining_values(b))
    for field in old | new:
        if old.get(field) != new.get(field):
            return f" (config.{field} = {old.get(field)!r} there, {new.get(field)!r} here)"
    return " (the source of its router, or the vocabulary)"


_MAX_SWEEP = 7  # characters: a job's name has 40, a run's 28


def to_json(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON can hold it."""
    values = dataclasses.asdict(manifest)
    return values | {"runs": list(values["runs"])}


def from_json(values: dict[str, Any]) -> Manifest:
    """The manifest that `to_json` wrote. Raises UserError on the first value that it cannot have written."""
    store = _take(values, "store", dict)
    identity = StoreIdentity(
        _take(store, "path", str),
        _take(store, "sha256", str),
        _take(store, "vocab_size", int),
        train_tokens=None if store.get("train_tokens") is None else _take(store, "train_tokens", int),
    )
    runs: dict[str, PlannedRun] = {}
    for i, entry in enumerate(_take(values, "runs", list)):
        if not isinstance(entry, dict):
            raise UserError(f"its run {i} is {entry!r:.40}")
        name = check_name(entry.get("name"))
        if name in runs:
            raise UserError(f"its run {name} appears twice")
        try:
            runs[name] = _run(name, entry, identity)
        except UserError as e:
            raise UserError(f"its run {name}: {e}") from e
    if not runs:
        raise UserError("it has no run")
    sweep = check_name(values.get("sweep"))
    if len(sweep) > _MAX_SWEEP:
        raise UserError(f"sweep is {sweep!r}, longer than {_MAX_SWEEP} characters")
    return Manifest(sweep, _take(values, "config_flags", str), identity, tuple(runs.values()))


def _run(name: str, entry: dict[str, Any], store: StoreIdentity) -> PlannedRun:
    """A run, checked: its counts and hash must follow from its config and the store.

    A user's router may have changed since, or be missing on this machine; its runs can be read all the same, and
    check_routers refuses them before they are trained."""
    config = fields.from_dict(_take(entry, "config", dict))
    V, hashed = _vocab_size(config, store), _take(entry, "config_hash", str)
    counted = counts.count_run(config, V)
    if entry.get("counts") != vars(counted):
        raise UserError("counts is not that of its config")
    if not _has_users_router(config) and hashed != config_hash(config, store.sha256, V):
        raise UserError("config_hash is not that of its config")
    if not records.is_of(rules := entry.get("rules"), Rules | None):
        raise UserError(f"rules is {rules!r:.40}")
    return PlannedRun(name, dict(_take(entry, "overrides", dict)), config, counted, hashed, rules)


def _take(values: dict[str, Any], field: str, kind: type) -> Any:
    value = values.get(field)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{field} is {value!r:.40}")
    return value
