"""Routing as `inspect` saw it: sentences on experts that no token chooses or too many do, and a table of layers."""

import dataclasses
import math
from collections.abc import Iterator, Sequence

from moe_jax.report.elements import Code, Table, long_table, not_shown
from moe_jax.sweep.routing_record import LayerRouting, RoutingRecord
from moe_jax.text import count, fixed, percent, short

BUSY_LIMIT = 4.0  # loads of one expert above this many times the mean are named
# An expert is called unused only where balanced routing would give it this many tokens.
LEAST_TOKENS = 20
_NAMED = 24  # sentences at most


@dataclasses.dataclass(frozen=True)
class RoutingSection:
    """Sentences on collapse, what they were looked for by, and the layers of every inspected run."""

    damaged: Sequence[str]
    sentences: Sequence[str]
    more_sentences: int
    thresholds: str
    table: Table
    not_shown: int


def routing(routings: Sequence[RoutingRecord], damaged: Sequence[str]) -> RoutingSection:
    """The section for the runs that have a routing.json; `damaged` names files that cannot be used."""
    found = [sentence for record in routings for sentence in collapse(record)]
    rows = [row for record in routings for row in _rows(record)]
    headings = [
        "run", ">layer", ">max/mean before", ">after", ">unused before", ">after", ">entropy before", ">after",
        ">dropped at capacity", ">tokens without expert",
    ]  # fmt: skip
    caption = (
        "Load of the busiest expert over the mean, experts without a token, entropy of the router in nats, before "
        "training and after; dropped: at the capacity of training, with the trained router."
    )
    return RoutingSection(
        damaged=damaged,
        sentences=found[:_NAMED] or ([f"No collapse in {count(len(routings), 'inspected run')}."] if routings else []),
        more_sentences=max(0, len(found) - _NAMED),
        thresholds=(
            f"A layer is named where an expert takes more than {BUSY_LIMIT:g} times the mean load, or takes no token "
            f"although balanced routing would give each expert at least {LEAST_TOKENS}."
        ),
        table=long_table(headings, rows, caption),
        not_shown=not_shown(rows),
    )


def collapse(record: RoutingRecord) -> Iterator[str]:
    """`layer 2 of NAME: 7 of 64 experts take none of 12,288 tokens`, for each layer of the trained model; none where
    experts choose, since all have the same load."""
    if record.experts_choose:
        return
    for number, layer in enumerate(record.trained, 1):
        said = []
        if layer.unused and layer.mean_load >= LEAST_TOKENS:
            take = "takes" if layer.unused == 1 else "take"
            said.append(f"{layer.unused} of {record.n_experts} experts {take} none of {record.tokens:,} tokens")
        if layer.max_over_mean > BUSY_LIMIT:
            said.append(f"the load of the busiest expert is {layer.max_over_mean:.1f} × the mean")
        if said:
            yield f"Layer {number} of {record.name}: {', and '.join(said)}."


def _rows(record: RoutingRecord) -> Iterator[list[str | Code]]:
    for number, (before, after) in enumerate(zip(record.initial, record.trained, strict=True), 1):
        yield [
            Code(record.name), str(number), short(before.max_over_mean), short(after.max_over_mean),
            str(before.unused), str(after.unused), fixed(before.entropy, 2), _entropy(after),
            percent(after.dropped_fraction), percent(after.tokens_without_expert),
        ]  # fmt: skip


def _entropy(layer: LayerRouting) -> str:
    return f"{layer.entropy:.2f} of {math.log(len(layer.load)):.2f}"
