"""One start of a run, attempts/<n>.json: when it began, and how it ended."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from moe_jax import records

_MAX_SENTENCE = 2000  # characters


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
    """One start; a value that is not known is None. Times are seconds since the epoch."""

    began: float | None = None
    token: str | None = None  # tells the start from any other with its number; "" where a launcher recorded it
    ended: float | None = None  # None: still running, or killed and not recorded
    exit_code: int | None = None  # of the process; negative: the signal that ended it
    sentence: str = ""  # its last words

    def as_ended(self, time: float, exit_code: int, sentence: str) -> "Attempt":
        """The attempt with its end; a long sentence loses its beginning."""
        return dataclasses.replace(self, ended=time, exit_code=exit_code, sentence=sentence[-_MAX_SENTENCE:])

    def to_json(self) -> dict[str, Any]:
        """The object of attempts/<n>.json; a running attempt has no fields of its end."""
        of_end = ("ended", "exit_code", "sentence")
        return {k: v for k, v in dataclasses.asdict(self).items() if self.ended is not None or k not in of_end}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Attempt":
        """The attempt in a JSON object; a value that cannot be read is None. Never raises."""
        code, ended = values.get("exit_code"), values.get("ended")
        known: dict[str, Any] = {"exit_code": code if type(code) is int else None}
        if "ended" in values and not records.is_of(ended, float):
            known["ended"] = 0.0  # it has ended at an unknown time
        return records.read_leniently(cls, values, **known)
