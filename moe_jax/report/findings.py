"""What the losses of a sweep show: counts, and sentences that claim no more than was measured."""

import dataclasses
import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from moe_jax.sweep.results import Row
from moe_jax.text import count, percent, short

DROPPED_LIMIT = 0.10  # above this share of dropped assignments the effect of G cannot be told from that of dropping

AXES = {"N": "n_total_nonemb", "D": "tokens", "G": "granularity"}  # columns of results.csv
LABELS = {
    "N": "N: non-embedding parameters, all experts",
    "D": "D: training tokens",
    "G": "G: granularity, d_ff / d_expert",
}
# Only runs that agree in all of these columns are compared; runs that differ in nothing but their seed share a cell.
_CONTEXT = (
    "expansion_rate", "active_rate", "router", "dispatch", "schedule", "optimizer", "sequence_length",
    "vocab_size", "compute_dtype", "store_sha256",
)  # fmt: skip
# A grid may set these by a rule of N and D, so they separate cells only where one (N, D, G) has several values.
_TUNED = ("learning_rate", "batch_tokens")


@dataclasses.dataclass(frozen=True)
class MeasuredCell:
    """The finished runs of one (N, D, G), which differ in nothing but their seed."""

    N: int
    D: int
    G: float | None  # None: dense
    context: tuple[tuple[str, object], ...]  # (column, value); cells are compared only where it is equal
    rows: tuple[Row, ...]

    @property
    def losses(self) -> tuple[float, ...]:
        return tuple(row["eval_loss"] for row in self.rows)

    @property
    def loss(self) -> float:
        return statistics.fmean(self.losses)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two neighbouring cells on one axis that agree in everything else."""

    axis: str
    low: MeasuredCell
    high: MeasuredCell

    @property
    def rise(self) -> float:
        """Loss at the larger value minus loss at the smaller, nats: below 0 where the loss falls."""
        return self.high.loss - self.low.loss


def measured_cells(rows: Sequence[Row]) -> list[MeasuredCell]:
    """The cells of the finished runs, sorted by N, D, G."""
    done = [row for row in rows if row["status"] == "done"]
    context = (*_CONTEXT, *(column for column in _TUNED if _varies_within_cells(done, column)))
    found: dict[tuple, list[Row]] = defaultdict(list)
    for row in done:
        found[tuple(row[column] for column in (*AXES.values(), *context))].append(row)
    made = [
        MeasuredCell(N, D, G, tuple(zip(context, rest, strict=True)), tuple(same))
        for (N, D, G, *rest), same in found.items()
    ]
    return sorted(made, key=lambda c: (c.N, c.D, c.G or 0, str(c.context)))


def _varies_within_cells(rows: Sequence[Row], column: str) -> bool:
    seen: dict[tuple, set] = defaultdict(set)
    for row in rows:
        seen[tuple(row[c] for c in (*AXES.values(), *_CONTEXT))].add(row[column])
    return any(len(values) > 1 for values in seen.values())


def neighbours(grid: Sequence[MeasuredCell], axis: str) -> list[Pair]:
    """Pairs of cells that are next to each other on an axis (N, D or G), all else equal."""
    pairs = []
    for line in lines(grid, axis):
        pairs += [Pair(axis, low, high) for low, high in itertools.pairwise(line)]
    return pairs


def lines(grid: Sequence[MeasuredCell], axis: str) -> Iterator[list[MeasuredCell]]:
    """Groups of cells that differ on one axis only, ascending along it."""
    found: dict[tuple, list[MeasuredCell]] = defaultdict(list)
    for cell in grid:
        if getattr(cell, axis) is not None:
            rest = tuple(getattr(cell, other) for other in AXES if other != axis)
            found[(*rest, cell.context)].append(cell)
    for line in found.values():
        if len(line) > 1:
            yield sorted(line, key=lambda cell: getattr(cell, axis))


def noise(grid: Sequence[MeasuredCell]) -> float | None:
    """Pooled standard deviation of the loss between seeds, nats; None where no cell has two seeds."""
    repeated = [cell.losses for cell in grid if len(cell.losses) > 1]
    if not repeated:
        return None
    freedom = sum(len(losses) - 1 for losses in repeated)
    return (sum(statistics.variance(losses) * (len(losses) - 1) for losses in repeated) / freedom) ** 0.5


def falls(grid: Sequence[MeasuredCell]) -> tuple[str, list[Pair]]:
    """A sentence on how often the loss falls with N and with D, and the pairs where it does not, largest rise first."""
    counted, exceptions = [], []
    for axis in ("N", "D"):
        pairs = neighbours(grid, axis)
        rising = [pair for pair in pairs if pair.rise >= 0]
        exceptions += rising
        if pairs:
            counted.append(f"with {axis} in {len(pairs) - len(rising)} of {len(pairs)} neighbouring pairs")
    if not counted:
        return "No two finished runs are neighbours in N or D, so there is nothing to compare yet.", []
    return f"Losses fall {' and '.join(counted)}.", sorted(exceptions, key=lambda pair: -pair.rise)


def pair_sentence(pair: Pair) -> str:
    """`N 34.8k → 139k at D = 96k, G = 2: 3.0541 → 3.0602 (+0.0061)`."""
    low, high = getattr(pair.low, pair.axis), getattr(pair.high, pair.axis)
    at = ", ".join(f"{axis} = {short(getattr(pair.low, axis))}" for axis in AXES if axis != pair.axis)
    return (
        f"{pair.axis} {short(low)} → {short(high)} at {at}: "
        f"{pair.low.loss:.4f} → {pair.high.loss:.4f} ({pair.rise:+.4f})"
    )


@dataclasses.dataclass(frozen=True)
class GranularityEffect:
    """The losses of one (N, D) at its values of G, ascending."""

    N: int
    D: int
    Gs: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def spread(self) -> float:
        """Highest minus lowest loss, nats."""
        return max(self.losses) - min(self.losses)

    @property
    def change(self) -> float:
        """Loss at the finest G minus loss at the coarsest, nats: below 0 where finer is better."""
        return self.losses[-1] - self.losses[0]


def granularity_effects(grid: Sequence[MeasuredCell]) -> list[GranularityEffect]:
    """The effect of G at each (N, D) that has finished runs at two or more G."""
    return [
        GranularityEffect(line[0].N, line[0].D, tuple(c.G for c in line), tuple(c.loss for c in line))
        for line in lines(grid, "G")
    ]


def granularity_sentences(effects: Sequence[GranularityEffect], seed_noise: float | None) -> list[str]:
    """Sentences on size and sign of the effect of G. seed_noise: from `noise`, nats."""
    if not effects:
        return ["No (N, D) has finished runs at two or more G, so the effect of G cannot be seen yet."]
    spreads = [effect.spread for effect in effects]
    better, pairs = sum(effect.change < 0 for effect in effects), count(len(effects), "(N, D) pair")
    said = [
        f"At fixed (N, D) the loss differs between values of G by {min(spreads):.4f} to {max(spreads):.4f} nats "
        f"(median {statistics.median(spreads):.4f}, {pairs}).",
        f"The finest G has a lower loss than the coarsest in {better} of {pairs}"
        + ("." if better in (0, len(effects)) else ": the effect has no single sign here."),
    ]
    if seed_noise is None:
        said.append("No cell has two seeds, so these runs alone cannot tell the effect of G from noise.")
    else:
        said.append(noise_sentence(seed_noise))
    return said


def noise_sentence(seed_noise: float | None) -> str:
    """The noise of a single run, as a sentence. seed_noise: from `noise`, nats."""
    if seed_noise is None:
        return "No cell has two seeds, so the noise of a single run cannot be estimated from these runs."
    return f"Seeds of one cell scatter by {seed_noise:.4f} nats (standard deviation)."


def dropped(rows: Sequence[Row]) -> tuple[list[str], list[Row]]:
    """Sentences on dropped assignments, and the finished runs that dropped more than DROPPED_LIMIT."""
    known = [row for row in rows if row["status"] == "done" and row["dropped_fraction"] is not None]
    if not known:
        return ["No finished run reports a dropped fraction."], []
    worst = max(known, key=lambda row: row["dropped_fraction"])
    least = min(row["dropped_fraction"] for row in known)
    said = [
        f"The share of token-to-expert assignments dropped over capacity is {percent(least)} to "
        f"{percent(worst['dropped_fraction'])} (largest in {worst['name']})."
    ]
    over = [row for row in known if row["dropped_fraction"] > DROPPED_LIMIT]
    if over:
        said.append(
            f"{count(len(over), 'run')} of {len(known)} dropped more than {DROPPED_LIMIT:.0%}. There G is confounded "
            "with dropping: an apparent effect of granularity may be an effect of lost tokens. Raise "
            "moe.capacity_factor, or use another router."
        )
    return said, over


def mean_by(rows: Sequence[Row], value: str, key: str) -> dict[Any, float]:
    """The mean of column `value` over finished runs, by column `key`; runs without the value are left out."""
    groups: dict[Any, list[float]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done" and row[value] is not None:
            groups[row[key]].append(row[value])
    return {key: statistics.fmean(values) for key, values in groups.items()}
