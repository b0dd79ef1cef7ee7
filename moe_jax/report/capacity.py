"""What dropping costs on the held-out windows: eval_loss_capacity against eval_loss, and the shares dropped."""

from collections.abc import Sequence

from moe_jax.sweep.results import Row
from moe_jax.text import count, percent

WITHOUT_SEEDS = 0.005  # nats: what counts as a difference where no seeds were run
_NAMED = 6  # runs at most


def inflation(row: Row) -> float | None:
    """Held-out loss with training's capacity minus that without dropping, nats; None where both are the same thing."""
    if row["eval_loss"] is None or row["eval_loss_capacity"] is None:
        return None
    return row["eval_loss_capacity"] - row["eval_loss"]


def sentences(rows: Sequence[Row], seed_noise: float | None) -> list[str]:
    """How much the two losses differ, how much was dropped, and the runs where that is more than the noise of a seed.
    seed_noise: from findings.noise, nats."""
    found = [row for row in rows if row["status"] == "done" and inflation(row) is not None]
    if not found:
        return []
    limit = WITHOUT_SEEDS if seed_noise is None else seed_noise
    least, most = min(map(inflation, found)), max(map(inflation, found))
    said = [
        f"With the capacity of training, held-out losses are {least:+.4f} to {most:+.4f} nats above those without "
        f"dropping, which laws are fitted to. Dropped were {_range(found, 'dropped_fraction')} of the assignments in "
        f"training and {_range(found, 'eval_dropped_fraction')} in evaluation."
    ]
    over = sorted((row for row in found if abs(inflation(row)) > limit), key=lambda row: -abs(inflation(row)))
    what = "0.005 nats (no seeds were run)" if seed_noise is None else f"the noise of a seed, {seed_noise:.4f} nats"
    if not over:
        return [*said, f"In no run do the two losses differ by more than {what}."]
    named = ", ".join(
        f"{row['name']} {inflation(row):+.4f} with {percent(row['eval_dropped_fraction'])} dropped"
        for row in over[:_NAMED]
    )
    more = ", …" if len(over) > _NAMED else ""
    return [
        *said,
        f"In {count(len(over), 'run')} of {len(found)} the two losses differ by more than {what}: {named}{more}.",
    ]


def _range(rows: Sequence[Row], column: str) -> str:
    shares = [row[column] for row in rows if row[column] is not None]
    return f"{percent(min(shares))} to {percent(max(shares))}" if shares else "an unknown share"
