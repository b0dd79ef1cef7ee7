"""The effect of G as measured, and how many assignments were dropped at each G."""

import dataclasses
from collections.abc import Sequence

from moe_jax.report import capacity, findings
from moe_jax.report.elements import Table
from moe_jax.report.findings import DROPPED_LIMIT, MeasuredCell
from moe_jax.sweep.results import Row
from moe_jax.text import percent, short

_NAMED = 12  # runs at most that are named for having dropped much


@dataclasses.dataclass(frozen=True)
class GranularitySection:
    """Sentences on the effect of G; dropping in sentences, warnings, a table by G, and the runs above the limit."""

    effect: str
    dropping: str
    capacity: Sequence[str]  # what dropping costs on the held-out windows
    warnings: Sequence[str]
    table: Table | None
    above_limit: str | None


def granularity(rows: Sequence[Row], grid: Sequence[MeasuredCell]) -> GranularitySection:
    """The section for a grid with at least one finished run."""
    (dropping, *warnings), over = findings.dropped(rows)
    means = findings.mean_by(rows, "dropped_fraction", "granularity")
    ordered = sorted(means.items(), key=lambda pair: pair[0] or 0)
    evaluated = findings.mean_by(rows, "eval_dropped_fraction", "granularity")
    cells = [["dense" if G is None else short(G), percent(mean), percent(evaluated.get(G))] for G, mean in ordered]
    names = ", ".join(f"{row['name']} {percent(row['dropped_fraction'])}" for row in over[:_NAMED])
    more = ", …" if len(over) > _NAMED else ""
    return GranularitySection(
        effect=" ".join(findings.granularity_sentences(findings.granularity_effects(grid), findings.noise(grid))),
        dropping=dropping,
        capacity=capacity.sentences(rows, findings.noise(grid)),
        warnings=warnings,
        table=Table([">G", ">dropped, mean over runs", ">in evaluation with capacity"], cells) if cells else None,
        above_limit=f"Above {DROPPED_LIMIT:.0%}: {names}{more}." if over else None,
    )
