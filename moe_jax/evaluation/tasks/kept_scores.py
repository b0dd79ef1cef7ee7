"""The scores of a task so far: evaluations/task-NAME.scores.jsonl in the run's folder.

The first line says what they are scores of (checkpoint, requests); each other line has the scores of a batch. The file
is written whole, every few seconds and at the end, since object stores cannot append. It stays: it is the only place
with the score of each request.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from moe_jax import files
from moe_jax.evaluation.tasks.scoring import Scores
from moe_jax.text import number

SECONDS = 5.0  # between two writes


class KeptScores:
    """Scores of n requests. `identity` says what they are scores of; those of something else are not taken."""

    def __init__(self, path: epath.Path, identity: dict[str, Any], n: int, say: Callable[[str], None]):
        self._path, self._identity = path, identity
        self.scores = Scores(np.zeros(n), np.zeros(n, bool))
        self._known = np.zeros(n, bool)
        self._lines: list[str] = []
        self._written = time.monotonic()
        self._load(say)

    @property
    def done(self) -> int:
        """How many requests have a score."""
        return int(self._known.sum())

    def has(self, requests: Sequence[int]) -> bool:
        """Whether all these requests have a score."""
        return bool(self._known[list(requests)].all())

    def add(self, requests: Sequence[int], scores: Scores) -> None:
        """Takes a batch's scores; writes the file if the last time is long enough ago."""
        self._take(list(requests), scores.log_likelihood.tolist(), scores.greedy.tolist())
        if time.monotonic() - self._written >= SECONDS:
            self.write()

    def write(self) -> None:
        """Writes the file. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in [json.dumps(self._identity), *self._lines])
        files.write_atomic(self._path, text.encode())
        self._written = time.monotonic()

    def _take(self, requests: list[int], log_likelihood: list[float], greedy: list[bool]) -> None:
        self.scores.log_likelihood[requests], self.scores.greedy[requests] = log_likelihood, greedy
        self._known[requests] = True
        line = {"requests": requests, "log_likelihood": log_likelihood, "greedy": greedy}
        self._lines.append(json.dumps(line))

    def _load(self, say: Callable[[str], None]) -> None:
        try:
            first, *others = files.read_file(self._path).decode().splitlines()
            if json.loads(first) != self._identity:
                say(f"{self._path}: has scores of another checkpoint or of other requests; they are replaced")
                return
            read = [_batch(line, len(self._known)) for line in others]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, files.DamagedFile) as e:
            if isinstance(e, files.UnreadableFile):
                raise
            say(f"{self._path}: is damaged, so all requests are scored again")
            return
        for batch in read:
            self._take(*batch)


def _batch(line: str, n: int) -> tuple[list[int], list[float], list[bool]]:
    """The scores in a line. Raises ValueError, KeyError or TypeError where they are none of n requests."""
    read = json.loads(line)
    requests, log_likelihood, greedy = read["requests"], read["log_likelihood"], read["greedy"]
    whole = all(type(i) is int and 0 <= i < n for i in requests)
    real = all(number(v) is not None for v in log_likelihood) and all(type(v) is bool for v in greedy)
    if not whole or not real or not len(requests) == len(log_likelihood) == len(greedy):
        raise ValueError("these are no scores")
    return requests, log_likelihood, greedy
