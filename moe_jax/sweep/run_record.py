"""run.json: the config, store, versions and devices of a run's newest start, written before its first step."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from moe_jax import records
from moe_jax.config import fields
from moe_jax.config.counts import RunCounts
from moe_jax.config.schema import Config
from moe_jax.errors import UserError
from moe_jax.sweep.manifest import Rules, StoreIdentity


@dataclasses.dataclass(frozen=True)
class RunStore(StoreIdentity):
    """The token store that a run learns from."""

    vocabulary: dict[str, Any]  # as store.json describes it
    end_of_document: int  # token id


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The newest start of a run."""

    name: str
    began: float  # seconds since the epoch
    attempt: int  # number of the start
    config: Config
    config_hash: str
    counts: RunCounts
    store: RunStore
    mesh: dict[str, int]  # axis -> devices
    device: str  # kind
    platform: str  # cpu, gpu, tpu
    n_devices: int  # of all processes
    host: str  # of the first process
    git_commit: str | None  # with + where files differ from it
    versions: dict[str, str]  # package -> version
    rules: Rules | None = None  # of the fields that a law set

    def to_json(self) -> dict[str, Any]:
        """The object of run.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "RunRecord":
        """The record in run.json. Raises UserError, which says what is wrong, where a run did not write it."""
        config = values.get("config")
        if not isinstance(config, Mapping):
            raise UserError(f"config is {config!r:.40}")
        return records.read(cls, values, config=fields.from_dict(config))
