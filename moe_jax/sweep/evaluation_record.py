"""What a run's checkpoint is worth on one store or task: evaluations/KIND-OF.json in the run's folder.

An evaluation is made after the run, as often as one likes, and enters neither its config hash nor its result. `collect`
gives each of its values a column: eval_loss_<store>, bits_per_byte_<store>, <task>_<metric>.
"""

import dataclasses
import enum
from typing import Any

from moe_jax import records
from moe_jax.config.held_out_stores import COLUMN_PART
from moe_jax.errors import UserError


class Kind(enum.StrEnum):
    """What a checkpoint was evaluated on."""

    STORE = "store"  # the held-out part of a token store
    TASK = "task"  # requests of a downstream task


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """The values of one checkpoint on one store or task."""

    name: str  # of the run
    kind: Kind
    of: str  # the store's or the task's name; columns carry it
    step: int  # of the checkpoint
    tokens: int  # that it was trained on
    values: dict[str, float]  # by metric: eval_loss in nats a token, bits_per_byte, accuracy, …
    about: dict[str, Any]  # what was read and how: path, sha256, windows, shots, share cut, …

    def columns(self) -> dict[str, float]:
        """The values by their columns of results.csv."""
        stem = "{metric}_{of}" if self.kind == Kind.STORE else "{of}_{metric}"
        return {stem.format(metric=metric, of=self.of): value for metric, value in self.values.items()}

    def to_json(self) -> dict[str, Any]:
        """The object of the file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], name: str) -> "EvaluationRecord":
        """The record of the run `name`. Raises UserError, which says what is wrong, where it is not one."""
        if values.get("name") != name:
            raise UserError(f"its name is {values.get('name')!r:.40}")
        record = records.read(cls, values)
        check_name(record.of)
        for metric in record.values:
            check_name(metric)
        return record


def check_name(name: str) -> str:
    """The name of a store, a task or a metric. Raises UserError where it could not be a part of a column."""
    if not COLUMN_PART.fullmatch(name):
        raise UserError(f"{name!r:.80}: must be a name of lower-case letters, digits and _, at most 64 of them")
    return name
