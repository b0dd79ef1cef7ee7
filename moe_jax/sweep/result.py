"""The result of a run, result.json: what it holds, and what it must hold to be believed."""

import dataclasses
import enum
from typing import Any

from moe_jax import records
from moe_jax.errors import UserError


class Status(enum.StrEnum):
    """How a run ended."""

    DONE = "done"
    DIVERGED = "diverged"  # a loss or a gradient was not finite


# What a run must have measured for its result to mean anything.
_REQUIRED = {
    Status.DONE: ("eval_loss", "bits_per_byte", "dropped_fraction", "eval_dropped_fraction", "wall_seconds"),
    Status.DIVERGED: ("diverged_step",),
}
_OF_DIVERGED = ("diverged_step", "last_good_checkpoint")  # only these have them


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A run that has ended. Losses in nats per token; None where the run has no such value."""

    name: str
    status: Status
    steps: int  # updates whose loss is finite
    eval_loss: float | None = None  # on the held-out windows, with eval.dispatch: as a rule without dropping
    eval_loss_capacity: float | None = None  # with the dispatch and capacity of training; None where that is the same
    bits_per_byte: float | None = None  # of the same windows
    train_loss: float | None = None  # mean over the last train.loss_average_steps steps
    tokens: int  # on the whole path, the trunk's included
    own_tokens: int | None = None  # that the run trained itself
    trunk: str | None = None  # name of the trunk that it began from
    dropped_fraction: float | None = None  # of the (token, expert) assignments; mean over the same steps as train_loss
    eval_dropped_fraction: float | None = None  # of the held-out windows, with the dispatch and capacity of training
    skipped_steps: int | None = None  # updates that config.skip_step skipped
    max_over_mean_load: float | None = None  # of the experts, at the newest logged step
    config_hash: str
    attempts: int | None = None  # starts
    wall_seconds: float | None = None  # over all starts
    times: dict[str, float] | None = None  # seconds by what they were spent on; their sum is wall_seconds
    tokens_per_second: float | None = None
    mfu: float | None = None  # share of the devices' peak, by train_flops
    git_commit: str | None = None
    device: str | None = None  # kind
    n_devices: int | None = None
    diverged_step: int | None = None  # step (from 0) whose loss or gradient is not finite
    last_good_checkpoint: int | None = None  # step of the newest checkpoint before that

    def to_json(self) -> dict[str, Any]:
        """The object of result.json."""
        values = dataclasses.asdict(self)
        left_out = () if self.status == Status.DIVERGED else _OF_DIVERGED
        return {name: value for name, value in values.items() if name not in left_out}

    @classmethod
    def from_json(cls, values: dict[str, Any], name: str) -> "Result":
        """The result of the run `name`. Raises UserError, which says what is wrong, where it is not one."""
        for field, allowed in (("name", [name]), ("status", [*Status])):
            if values.get(field) not in allowed:
                raise UserError(f"its {field} is {values.get(field)!r:.40}")
        result = records.read(cls, values)
        for field in _REQUIRED[result.status]:
            if getattr(result, field) is None:
                raise UserError(f"{field} is None")
        for field in ("dropped_fraction", "eval_dropped_fraction"):
            if (share := getattr(result, field)) is not None and share > 1:
                raise UserError(f"{field} is {share!r}")
        return result


@dataclasses.dataclass(frozen=True)
class TrunkResult:
    """A trunk that has ended. It has no file: what a trunk leaves are its checkpoints."""

    name: str
    status: Status
    steps: int  # updates whose loss is finite
