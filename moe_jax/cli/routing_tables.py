"""The tables that `inspect` prints of a run's routing."""

import json
import math
from collections.abc import Iterator

from moe_jax.cli.tables import Table
from moe_jax.sweep.routing_record import LayerRouting, RoutingRecord
from moe_jax.text import fixed, percent, short

_LAYERS, _PAIRS, _EXPERTS, _TOKENS = 4, 4, 4, 5  # shown: layers with pairs and tokens; of each pairs, experts; tokens
_WHEN = ("before training", "after")


def shown(routing: RoutingRecord) -> Iterator[tuple[str, Table]]:
    """(title, table) of all that is printed; routing.json has the rest."""
    if routing.experts_choose:
        yield "experts of a token (all experts have the same load)", _experts_of_tokens(routing)
    else:
        yield f"load of the {routing.n_experts} experts", _loads(routing)
    chosen = _spread(len(routing.trained))
    pairs = _pairs(routing, chosen)
    if pairs.rows:
        yield "pairs of experts that share more tokens than chance, after training", pairs
    share = "share of the expert's tokens, and × its share of the text"
    yield f"tokens of the busiest experts, after training ({share})", _tokens(routing, chosen)


def _by_layer(routing: RoutingRecord) -> Iterator[tuple[str, str, LayerRouting]]:
    for number, layers in enumerate(zip(routing.initial, routing.trained, strict=True), 1):
        for when, layer in zip(_WHEN, layers, strict=True):
            yield str(number) if when == _WHEN[0] else "", when, layer


def _entropy(layer: LayerRouting) -> str:
    return f"{layer.entropy:.3f} of {math.log(len(layer.load)):.3f}"


def _loads(routing: RoutingRecord) -> Table:
    rows = []
    for number, when, layer in _by_layer(routing):
        over_mean = [short(layer.load_percentile(q) / (layer.mean_load or 1)) for q in (5, 50, 95)]
        rows.append(
            [number, when, short(layer.max_over_mean), *over_mean, fixed(layer.max_violation, 3), f"{layer.unused:,}",
             _entropy(layer), percent(layer.dropped_fraction)]
        )  # fmt: skip
    headings = [
        ">layer", "", ">max / mean", ">5%", ">median", ">95%", ">max violation", ">unused", ">entropy (nats)",
        ">dropped at capacity",
    ]  # fmt: skip
    return Table(headings, rows, spare=[">5%", ">95%", ">max violation"])


def _experts_of_tokens(routing: RoutingRecord) -> Table:
    rows = [
        [number, when, percent(layer.tokens_without_expert), *map(short, layer.experts_per_token), _entropy(layer)]
        for number, when, layer in _by_layer(routing)
    ]
    return Table([">layer", "", ">tokens without", ">5%", ">median", ">95%", ">entropy (nats)"], rows)


def _pairs(routing: RoutingRecord, chosen: list[int]) -> Table:
    rows = []
    for i in chosen:
        for n, (a, b, seen, chance) in enumerate(routing.trained[i].pairs[:_PAIRS]):
            times = f"{seen / chance:.1f}×" if chance else "–"
            rows.append([str(i + 1) if n == 0 else "", f"{a} and {b}", f"{seen:,}", times])
    return Table([">layer", "experts", ">tokens", ">over chance"], rows)


def _tokens(routing: RoutingRecord, chosen: list[int]) -> Table:
    rows = []
    for i in chosen:
        layer = routing.trained[i]
        for n, (expert, tokens) in enumerate([*layer.top_tokens.items()][:_EXPERTS]):
            said = "  ".join(f"{_quoted(text)} {percent(share)} {lift:.1f}×" for text, share, lift in tokens[:_TOKENS])
            load = percent(layer.load[int(expert)] / (sum(layer.load) or 1))
            rows.append([str(i + 1) if n == 0 else "", expert, load, said])
    return Table([">layer", ">expert", ">of the load", "tokens"], rows)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _spread(n: int) -> list[int]:
    """At most _LAYERS of n layers, the first and the last among them."""
    if n <= _LAYERS:
        return [*range(n)]
    return [round(i * (n - 1) / (_LAYERS - 1)) for i in range(_LAYERS)]
