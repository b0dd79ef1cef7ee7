"""What the losses of a sweep show, counted, and in sentences that claim no more than was seen."""

import dataclasses
import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from moe_jax.results import Row
from moe_jax.tables import count, percent, short

DROPPED_LIMIT = 0.10  # above this share of dropped assignments, what G does cannot be told from what dropping does

AXES = {"N": "n_total_nonemb", "D": "tokens", "G": "granularity"}
# Runs are compared only where they agree in all of these; cells that differ in seed alone are one cell, repeated.
_CONTEXT = (
    "expansion_rate", "active_rate", "router", "dispatch", "schedule", "sequence_length", "vocabulary_size",
    "compute_dtype", "store_sha256",
)  # fmt: skip
# A grid may set these by a rule of N and D; they tell runs apart only where one (N, D, G) has several of them.
_TUNED = ("learning_rate", "batch_tokens")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One (N, D, G) of the grid: its finished runs, which differ in their seed alone."""

    N: int
    D: int
    G: float | None  # None: dense
    context: tuple[tuple[str, object], ...]  # (column, value) of all that is compared only with its like
    rows: tuple[Row, ...]

    @property
    def losses(self) -> tuple[float, ...]:
        return tuple(row["eval_loss"] for row in self.rows)

    @property
    def loss(self) -> float:
        return statistics.fmean(self.losses)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Neighbours on one axis that differ in nothing else."""

    axis: str
    low: Cell
    high: Cell

    @property
    def rise(self) -> float:
        """Loss at the larger value less loss at the smaller, nats: below 0 where the loss falls."""
        return self.high.loss - self.low.loss


def cells(rows: Sequence[Row]) -> list[Cell]:
    """The cells of the rows that are done, sorted by N, D, G."""
    done = [row for row in rows if row["status"] == "done"]
    context = (*_CONTEXT, *(column for column in _TUNED if _varies_within_cells(done, column)))
    found: dict[tuple, list[Row]] = defaultdict(list)
    for row in done:
        found[tuple(row[column] for column in (*AXES.values(), *context))].append(row)
    made = [
        Cell(N, D, G, tuple(zip(context, rest, strict=True)), tuple(same)) for (N, D, G, *rest), same in found.items()
    ]
    return sorted(made, key=lambda c: (c.N, c.D, c.G or 0, str(c.context)))


def _varies_within_cells(rows: Sequence[Row], column: str) -> bool:
    seen: dict[tuple, set] = defaultdict(set)
    for row in rows:
        seen[tuple(row[c] for c in (*AXES.values(), *_CONTEXT))].add(row[column])
    return any(len(values) > 1 for values in seen.values())


def neighbours(grid: Sequence[Cell], axis: str) -> list[Pair]:
    """Pairs of cells next to each other on an axis (N, D or G), all else equal."""
    pairs = []
    for line in lines(grid, axis):
        pairs += [Pair(axis, low, high) for low, high in itertools.pairwise(line)]
    return pairs


def lines(grid: Sequence[Cell], axis: str) -> Iterator[list[Cell]]:
    """Cells that differ on one axis only, ascending."""
    lines: dict[tuple, list[Cell]] = defaultdict(list)
    for cell in grid:
        if getattr(cell, axis) is not None:
            rest = tuple(getattr(cell, other) for other in AXES if other != axis)
            lines[(*rest, cell.context)].append(cell)
    for line in lines.values():
        if len(line) > 1:
            yield sorted(line, key=lambda cell: getattr(cell, axis))


def noise(grid: Sequence[Cell]) -> float | None:
    """Pooled standard deviation of the loss between seeds of a cell, nats; None where no cell was repeated."""
    repeated = [cell.losses for cell in grid if len(cell.losses) > 1]
    if not repeated:
        return None
    freedom = sum(len(losses) - 1 for losses in repeated)
    return (sum(statistics.variance(losses) * (len(losses) - 1) for losses in repeated) / freedom) ** 0.5


def falls(grid: Sequence[Cell]) -> tuple[str, list[Pair]]:
    """How often the loss falls with N and with D, and the pairs where it does not, the largest rise first."""
    counted, exceptions = [], []
    for axis in ("N", "D"):
        pairs = neighbours(grid, axis)
        rising = [pair for pair in pairs if pair.rise >= 0]
        exceptions += rising
        if pairs:
            counted.append(f"with {axis} in {len(pairs) - len(rising)} of {len(pairs)} neighbouring pairs")
    if not counted:
        return "No two finished runs are neighbours in N or in D, so there is nothing to compare yet.", []
    return f"Losses fall {' and '.join(counted)}.", sorted(exceptions, key=lambda pair: -pair.rise)


def say_pair(pair: Pair) -> str:
    """`N 34.8k → 139k at D = 96k, G = 2: 3.0541 → 3.0602 (+0.0061)`."""
    low, high = getattr(pair.low, pair.axis), getattr(pair.high, pair.axis)
    at = ", ".join(f"{axis} = {short(getattr(pair.low, axis))}" for axis in AXES if axis != pair.axis)
    return (
        f"{pair.axis} {short(low)} → {short(high)} at {at}: "
        f"{pair.low.loss:.4f} → {pair.high.loss:.4f} ({pair.rise:+.4f})"
    )


@dataclasses.dataclass(frozen=True)
class GranularityEffect:
    """What G does within one (N, D)."""

    N: int
    D: int
    Gs: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def range(self) -> float:
        return max(self.losses) - min(self.losses)

    @property
    def change(self) -> float:
        """Loss at the finest less loss at the coarsest, nats: below 0 where finer is better."""
        return self.losses[-1] - self.losses[0]


def granularity_effects(grid: Sequence[Cell]) -> list[GranularityEffect]:
    return [
        GranularityEffect(line[0].N, line[0].D, tuple(c.G for c in line), tuple(c.loss for c in line))
        for line in lines(grid, "G")
    ]


def say_granularity(effects: Sequence[GranularityEffect], between_seeds: float | None) -> list[str]:
    """The size and sign of the effect of G over the (N, D) that have several G."""
    if not effects:
        return ["No (N, D) has finished runs at two or more G, so nothing is seen of the effect of G yet."]
    ranges = [effect.range for effect in effects]
    better = sum(effect.change < 0 for effect in effects)
    said = [
        f"Between the G of one (N, D) the loss differs by {min(ranges):.4f} to {max(ranges):.4f} nats "
        f"(median {statistics.median(ranges):.4f}, {count(len(effects), 'cell')}).",
        f"The finest G has a lower loss than the coarsest in {better} of {count(len(effects), 'cell')}"
        + ("." if better in (0, len(effects)) else ": the effect has no single sign here."),
    ]
    if between_seeds is None:
        said.append("No cell was repeated with another seed, so these runs alone cannot tell this effect from noise.")
    else:
        said.append(f"Seeds of one cell scatter by {between_seeds:.4f} nats (standard deviation).")
    return said


def dropped(rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
    """Sentences on dropped assignments, and the runs above the limit."""
    known = [row for row in rows if row["status"] == "done" and row["dropped_fraction"] is not None]
    if not known:
        return ["No finished run reports a dropped fraction."], []
    worst = max(known, key=lambda row: row["dropped_fraction"])
    least = min(row["dropped_fraction"] for row in known)
    said = [
        f"Share of token-to-expert assignments that were dropped, over capacity: {percent(least)} to "
        f"{percent(worst['dropped_fraction'])} (largest in {worst['name']})."
    ]
    over = [row for row in known if row["dropped_fraction"] > DROPPED_LIMIT]
    if over:
        said.append(
            f"{count(len(over), 'run')} of {len(known)} dropped more than {DROPPED_LIMIT:.0%}. There G is confounded "
            "with dropping: what looks like an effect of granularity may be one of lost tokens. Raise "
            "moe.capacity_factor, or take another router."
        )
    return said, over


def mean_by(rows: Sequence[Row], value: str, key: str) -> dict[Any, float]:
    """Means of one column over the done rows that share another; rows without the value are left out."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done" and row[value] is not None:
            groups[row[key]].append(row[value])
    return {key: statistics.fmean(values) for key, values in groups.items()}
