"""How many different tokens of a store a run learns from: fewer than it trains on where the store is read again."""

import math

from moe_jax.config.schema import DataConfig


def unique_tokens(tokens: int, train_tokens: int, data: DataConfig) -> int:
    """Different tokens of a store's training part among the targets of a run that trains on `tokens` of them.

    `tokens` itself while no token is a target twice. Packed windows repeat none within an epoch. Random windows overlap
    within one, so the number is an expectation: a token lies in L of the S places where a window may start, of which
    tokens / L are drawn without replacement."""
    L = data.sequence_length
    if data.windows == "packed":
        return min(tokens, max(train_tokens - 1, 0) // L * L)
    places = max(train_tokens - L, 1)
    drawn = min(tokens / L / places, 1.0)
    seen = 1.0 if drawn == 1 else -math.expm1(L * math.log1p(-drawn))
    return min(tokens, round((train_tokens - 1) * seen))
