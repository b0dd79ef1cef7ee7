"""The grid of losses: a table for each setting, and where the loss does not fall with N or D."""

import dataclasses
from collections.abc import Sequence

from moe_jax.report import findings
from moe_jax.report.elements import TABLE_ROWS, Shaded, Table
from moe_jax.report.findings import MeasuredCell
from moe_jax.sweep import results
from moe_jax.sweep.results import Row
from moe_jax.text import short

_SETTINGS = 8  # at most, that get a table
_EXCEPTIONS = 30  # at most, that are listed


@dataclasses.dataclass(frozen=True)
class LossesSection:
    """Tables of losses, and sentences on them."""

    mixed: str | None  # a warning where the runs differ in what a law holds fixed
    tables: Sequence[Table]
    more_settings: int
    falls: str
    exceptions: Sequence[str]  # neighbours between which the loss rises
    noise: str


def losses(rows: Sequence[Row], grid: Sequence[MeasuredCell]) -> LossesSection:
    """A table per setting (expansion rate, router, …). Darker is lower."""
    contexts = list(dict.fromkeys(cell.context for cell in grid))
    differ = {pair[0] for context in contexts for pair in context if any(pair not in other for other in contexts)}
    falls, exceptions = findings.falls(grid)
    mixed = ", ".join(results.mixed(rows))
    warning = f"These runs differ in {mixed}; only runs that agree in it are compared with each other."
    return LossesSection(
        mixed=warning if mixed else None,
        tables=[_loss_table(grid, context, differ) for context in contexts[:_SETTINGS]],
        more_settings=max(0, len(contexts) - _SETTINGS),
        falls=falls,
        exceptions=[findings.pair_sentence(pair) for pair in exceptions[:_EXCEPTIONS]],
        noise=findings.noise_sentence(findings.noise(grid)),
    )


def _loss_table(grid: Sequence[MeasuredCell], context: tuple, differ: set[str]) -> Table:
    """The cells of one context, (N, D) by G. differ: the columns of the context that tell it from the others."""
    cells = {(cell.N, cell.D, cell.G): cell for cell in grid if cell.context == context}
    Gs = sorted({G for _, _, G in cells}, key=lambda G: G or 0)
    least, most = (f(cell.loss for cell in grid) for f in (min, max))

    def shaded(cell: MeasuredCell | None) -> Shaded | str:
        if cell is None:
            return ""
        several = f" ({len(cell.losses)} seeds)" if len(cell.losses) > 1 else ""
        return Shaded(f"{cell.loss:.4f}{several}", 0.04 + 0.46 * (most - cell.loss) / (most - least or 1))

    sizes = sorted({(N, D) for N, D, _ in cells})
    rows = [[short(N), short(D), *(shaded(cells.get((N, D, G))) for G in Gs)] for N, D in sizes]
    settings = ", ".join(f"{column} = {value}" for column, value in context if column in differ)
    headings = [">N total", ">D", *(">dense" if G is None else f">G = {short(G)}" for G in Gs)]
    return Table(headings, rows[:TABLE_ROWS], caption=f"Held-out loss, nats per token. {settings}".strip())
