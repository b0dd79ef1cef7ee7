"""Estimates how long the jobs of a sweep will still take, from the jobs that have ended."""

from collections.abc import Sequence


def seconds_left(ended: Sequence[tuple[float, float]], left: Sequence[tuple[float, float]], at_once: int) -> float:
    """Seconds until all jobs have ended, `at_once` at a time.

    ended: (FLOPs, seconds) of at least one job; left: (FLOPs, share that is still to do) of the others.
    A job takes a constant time to start, and then a time in proportion to its FLOPs: the least-squares line through the
    ended jobs, with neither part negative. Where these are all of one size, the start counts as zero: the higher
    estimate for a grid that begins with its small runs."""
    start, per_flop = _line(ended)
    seconds = sum(start * (share == 1) + per_flop * flops * share for flops, share in left)
    return seconds / max(1, min(at_once, len(left)))


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(a, b) of seconds = a + b · FLOPs."""
    n = len(points)
    mean_x, mean_y = (sum(p[i] for p in points) / n for i in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread == 0:
        return 0.0, mean_y / mean_x
    b = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    if b < 0:
        return mean_y, 0.0
    if b * mean_x > mean_y:
        return 0.0, sum(x * y for x, y in points) / sum(x * x for x, _ in points)
    return mean_y - b * mean_x, b
