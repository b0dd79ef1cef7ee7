"""Counts -> what routing.json says of a layer."""

from collections.abc import Callable

import numpy as np

from moe_jax.evaluation.routing.tally import Tally
from moe_jax.sweep.routing_record import LayerRouting

TOP_PAIRS, TOP_TOKENS = 16, 8  # of a layer, of an expert
MATRIX_EXPERTS = 64  # more: the matrix of pairs is left out
TOKEN_EXPERTS = 64  # the busiest, of a layer, whose tokens are listed


def layer_routing(tally: Tally, spell: Callable[[int], str]) -> LayerRouting:
    """The layer of a tally; `spell` gives the text of a token."""
    E, load_E = len(tally.together_ExE), tally.loads
    return LayerRouting(
        load=tuple(load_E.tolist()),
        entropy=tally.entropy,
        experts_per_token=tuple(float(_percentile(tally.with_experts, q)) for q in (5, 50, 95)),
        tokens_without_expert=int(tally.with_experts[0]) / tally.tokens,
        dropped_fraction=tally.dropped_fraction,
        pairs=pairs_above_chance(tally.together_ExE),
        together=tuple(map(tuple, tally.together_ExE.tolist())) if E <= MATRIX_EXPERTS else None,
        top_tokens=top_tokens(tally, spell),
    )


def _percentile(counts_n: np.ndarray, q: float) -> int:
    """The least value v such that q% of what is counted, counts_n[v] of each v, is at most v."""
    return int(np.searchsorted(counts_n.cumsum(), q / 100 * counts_n.sum()))


def pairs_above_chance(together_ExE: np.ndarray) -> tuple[tuple[int, int, int, float], ...]:
    """(a, b, tokens that have both, tokens by chance) of the TOP_PAIRS pairs that exceed chance by most.

    By chance a pair has load_a · load_b tokens, scaled so that all pairs together have as many as they do: experts that
    are chosen independently, but never twice by a token. Most means in units of the square root of the chance."""
    load_E = together_ExE.diagonal().astype(np.float64)
    a_n, b_n = np.triu_indices(len(load_E), k=1)
    seen_n, product_n = together_ExE[a_n, b_n], load_E[a_n] * load_E[b_n]
    if not seen_n.sum() or not product_n.sum():
        return ()
    chance_n = product_n * (seen_n.sum() / product_n.sum())
    surprise_n = (seen_n - chance_n) / np.sqrt(np.maximum(chance_n, 1e-9))
    order = np.argsort(-surprise_n, kind="stable")[:TOP_PAIRS]
    return tuple(
        (int(a_n[i]), int(b_n[i]), int(seen_n[i]), float(chance_n[i])) for i in order if seen_n[i] > chance_n[i]
    )


def top_tokens(tally: Tally, spell: Callable[[int], str]) -> dict[str, tuple[tuple[str, float, float], ...]]:
    """expert -> (text, share of its load, share over the token's share of the text) of its TOP_TOKENS tokens, most
    first; of the TOKEN_EXPERTS busiest experts that have any."""
    expert_n, token_n, count_n = tally.expert_tokens()
    load_E, frequency_V = tally.loads, tally.tokens_V / tally.tokens
    order = np.lexsort((token_n, -count_n, expert_n))
    first_E = np.searchsorted(expert_n[order], np.arange(len(load_E) + 1))
    found = {}
    for e in np.argsort(-load_E, kind="stable")[:TOKEN_EXPERTS].tolist():
        rows = order[first_E[e] : min(first_E[e] + TOP_TOKENS, first_E[e + 1])]
        shares = [(int(token_n[i]), int(count_n[i]) / int(load_E[e])) for i in rows]
        if shares:
            found[str(e)] = tuple((spell(t), share, share / float(frequency_V[t])) for t, share in shares)
    return found
