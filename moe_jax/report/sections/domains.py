"""The losses on other held-out parts (eval.stores, `evaluate --store`): a column pair for each."""

import dataclasses
import statistics
from collections.abc import Sequence

from moe_jax.report.elements import Code, Table, long_table, not_shown
from moe_jax.sweep import results
from moe_jax.sweep.results import Row
from moe_jax.text import fixed

_LOSS, _BITS = "eval_loss_", "bits_per_byte_"


@dataclasses.dataclass(frozen=True)
class DomainsSection:
    """A table of the stores over all runs, and one of each run."""

    stores: Table
    runs: Table
    not_shown: int  # runs beyond the table's rows


def domains(rows: Sequence[Row]) -> DomainsSection | None:
    """The section; None where no finished run was evaluated on another store."""
    done = [row for row in rows if row["status"] == "done"]
    columns = results.evaluated_columns(done)
    names = [c.removeprefix(_LOSS) for c in columns if c.startswith(_LOSS) and _BITS + c.removeprefix(_LOSS) in columns]
    if not names:
        return None
    measured = [row for row in done if any(_LOSS + name in row for name in names)]
    headings = ["run", *(h for name in names for h in (f">{name}: nats/token", f">{name}: bits/byte"))]
    cells = [[Code(row["name"]), *(text for name in names for text in _values(row, name))] for row in measured]
    return DomainsSection(
        stores=Table(
            ("store", ">runs", ">loss, lowest", ">loss, mean", ">bits/byte, lowest"),
            [_store(measured, name) for name in names],
        ),
        runs=long_table(
            headings, cells, "Held-out losses on other stores, without dropping unless eval.dispatch says otherwise."
        ),
        not_shown=not_shown(cells),
    )


def _values(row: Row, name: str) -> tuple[str, str]:
    return fixed(row.get(_LOSS + name), 4), fixed(row.get(_BITS + name), 3)


def _store(rows: Sequence[Row], name: str) -> list[str | Code]:
    losses = [row[_LOSS + name] for row in rows if _LOSS + name in row]
    bits = [row[_BITS + name] for row in rows if _BITS + name in row]
    return [
        Code(name),
        str(len(losses)),
        fixed(min(losses), 4),
        fixed(statistics.fmean(losses), 4),
        fixed(min(bits), 3),
    ]
