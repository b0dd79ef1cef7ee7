"""sweep.json as a value: a sweep's runs, with their configs, counts and hashes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from moe_jax import config as config_lib
from moe_jax import counts
from moe_jax.errors import UserError
from moe_jax.grid import Run, config_hash


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
