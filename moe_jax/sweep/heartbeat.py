"""The heartbeat of a run, heartbeat.json: how far it is, and what it does now."""

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from moe_jax import records
from moe_jax.text import duration, fixed, short

_MAX_SECONDS = 1e10  # three centuries: no run has spent more


class Phase(enum.StrEnum):
    """The phase that a run is in, or ended in."""

    STARTING = "starting"
    RESTORING = "restoring"
    COMPILING = "compiling"
    TRAINING = "training"
    EVALUATING = "evaluating"
    STOPPED = "stopped"  # stopped on request, and saved
    DONE = "done"
    DIVERGED = "diverged"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """A run at one moment; a value that is not known is None."""

    step: int = 0  # updates done
    steps: int = 0  # updates of the whole run, or of the trunk
    tokens: int = 0  # trained so far, the trunk's included
    loss: float | None = None  # nats per token, of the newest step
    tokens_per_second: float | None = None
    mfu: float | None = None  # share of the devices' peak
    seconds_left: float | None = None  # of training
    phase: Phase | None = None
    attempt: int | None = None  # number of the start
    host: str | None = None
    times: dict[str, float] = dataclasses.field(default_factory=dict)  # seconds by what they were spent on, all starts
    time: float | None = None  # when it was written, seconds since the epoch

    def describe(self) -> str:
        """`loss 2.713, 41.2k tokens/s, 12 s left`; the phase where there is no rate yet."""
        if self.tokens_per_second is None:
            return self.phase or ""
        return (
            f"loss {fixed(self.loss, 3)}, {short(self.tokens_per_second)} tokens/s, {duration(self.seconds_left)} left"
        )

    def to_json(self) -> dict[str, Any]:
        """The object of heartbeat.json."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Heartbeat":
        """The heartbeat in a JSON object; a value that cannot be read keeps its default. Never raises."""
        times = values.get("times")
        sound = {
            name: seconds
            for name, seconds in (times.items() if isinstance(times, dict) else ())
            if records.is_of(seconds, float) and seconds < _MAX_SECONDS
        }
        return records.read_leniently(cls, values, times=sound)
