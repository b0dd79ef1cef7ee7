"""sweep.json as a value: a sweep's runs, with their configs, counts and hashes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from moe_jax import config as config_lib
from moe_jax import config_fields, counts
from moe_jax.errors import UserError
from moe_jax.grid import Run, config_hash
from moe_jax.naming import check_name


@dataclasses.dataclass(frozen=True)
class StoreIdentity:
    """What a sweep remembers of the store that it was made for."""

    path: str
    sha256: str
    vocabulary_size: int


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run of the manifest."""

    name: str
    overrides: dict[str, Any]
    config: config_lib.Config
    counts: dict[str, Any]  # counts.Counts and counts.Flops, flat
    config_hash: str


@dataclasses.dataclass(frozen=True)
class Manifest:
    """sweep.json."""

    sweep: str  # at most 7 characters, of the job names
    config_flags: str  # the flags that the sweep was made with
    store: StoreIdentity
    runs: tuple[PlannedRun, ...]

    def run(self, name: str) -> PlannedRun:
        """Raises UserError where the sweep has no such run."""
        for run in self.runs:
            if run.name == name:
                return run
        raise UserError(
            f"--run={name}: the sweep has no such run; it has {', '.join(r.name for r in self.runs[:4])}, …"
        )


def plan_runs(runs: Sequence[Run], store: StoreIdentity) -> tuple[PlannedRun, ...]:
    """Runs with their counts and hashes for a store's vocabulary."""
    planned = []
    for run in runs:
        V = run.config.model.vocabulary_size or store.vocabulary_size
        if store.vocabulary_size > V:
            config_lib.refuse(
                "model.vocabulary_size", V, f"the store {store.path} has token ids up to {store.vocabulary_size}"
            )
        flat = dataclasses.asdict(counts.count_parameters(run.config, V)) | dataclasses.asdict(
            counts.count_flops(run.config, V)
        )
        flat |= {"steps": run.config.steps, "vocabulary_size": V}
        hashed = config_hash(run.config, store.sha256, V)
        planned.append(PlannedRun(run.name, dict(run.overrides), run.config, flat, hashed))
    return tuple(planned)


def extended(old: Manifest, new: Manifest, whole: bool, where: str) -> Manifest:
    """`old` with the runs of `new`, as Workdir.accept says. Raises UserError, which says `where` the old one is."""
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


def _first_difference(a: config_lib.Config, b: config_lib.Config) -> str:
    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        out = {}
        for key, value in values.items():
            out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return out

    old, new = flat(config_fields.to_dict(a)), flat(config_fields.to_dict(b))
    for field in old | new:
        if old.get(field) != new.get(field):
            return f" (config.{field} = {old.get(field)!r} there, {new.get(field)!r} here)"
    return " (the vocabulary differs)"


_MAX_SWEEP = 7  # characters: a job's name has 40, a run's 28


def to_json(manifest: Manifest) -> dict[str, Any]:
    """What `from_json` takes back."""
    values = dataclasses.asdict(manifest)
    return values | {"runs": list(values["runs"])}


def from_json(values: dict[str, Any]) -> Manifest:
    """The manifest that `to_json` wrote. Raises UserError on the first thing that it does not write."""
    store = _take(values, "store", dict)
    identity = StoreIdentity(
        _take(store, "path", str), _take(store, "sha256", str), _take(store, "vocabulary_size", int)
    )
    runs: dict[str, PlannedRun] = {}
    for i, entry in enumerate(_take(values, "runs", list)):
        if not isinstance(entry, dict):
            raise UserError(f"its run {i} is {entry!r:.40}")
        name = check_name(entry.get("name"))
        if name in runs:
            raise UserError(f"its run {name} is there twice")
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
    """Counts and hash follow from the config and the store: where they do not, something else has changed the file."""
    config = config_fields.from_dict(_take(entry, "config", dict))
    (planned,) = plan_runs([Run(name, _take(entry, "overrides", dict), config)], store)
    for field in ("counts", "config_hash"):
        if entry.get(field) != getattr(planned, field):
            raise UserError(f"{field} is not that of its config")
    return planned


def _take(values: dict[str, Any], field: str, kind: type) -> Any:
    value = values.get(field)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{field} is {value!r:.40}")
    return value
