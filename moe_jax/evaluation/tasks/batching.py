"""Requests in batches of few lengths: each length is a compile, and each batch is as long as its longest request.

The batches follow from the requests alone, not from what is scored already, so a start after a stop computes the same
batches, and their scores are the same to the bit.
"""

import dataclasses
from collections.abc import Sequence

_SHORTEST = 32  # positions


@dataclasses.dataclass(frozen=True)
class Batch:
    """Which requests are scored together, in windows of `length` positions and so many `rows`; rows may stay empty."""

    requests: tuple[int, ...]
    length: int
    rows: int


def plan(lengths: Sequence[int], positions: int, batch_tokens: int, parts: int) -> list[Batch]:
    """Batches of all requests, whose windows have `lengths` positions, from the shortest to the longest.

    A device gets about `batch_tokens` tokens of a batch, which is cut into `parts`. What does not fill a batch of its
    own length goes into the next longer one, so rows stay empty in the last batch alone."""
    batches, waiting = [], []
    steps = padded_lengths(max(lengths, default=0), positions)
    for shorter, length in zip([0, *steps], steps, strict=False):
        waiting += [i for i, n in enumerate(lengths) if shorter < n <= length]
        rows = parts * max(1, batch_tokens // length)
        whole = len(waiting) if length == steps[-1] else len(waiting) // rows * rows
        batches += [Batch(tuple(waiting[i : min(i + rows, whole)]), length, rows) for i in range(0, whole, rows)]
        waiting = waiting[whole:]
    return batches


def padded_lengths(longest: int, positions: int) -> list[int]:
    """The lengths of windows, in positions: 32, 48, 64, 96, 128, … up to the first that holds the longest; none is
    longer than the model's positions."""
    found = []
    power = _SHORTEST
    while not found or found[-1] < longest:
        for length in (power, power * 3 // 2):
            if not found or found[-1] < longest:
                found.append(min(length, positions))
        power *= 2
    return found
