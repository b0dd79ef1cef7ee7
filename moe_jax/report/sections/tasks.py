"""Downstream scores: a table of the runs, beside their held-out losses, and the effect of sparsity at equal loss."""

import dataclasses
from collections.abc import Sequence

from moe_jax.report import downstream
from moe_jax.report.downstream import ACCURACY, BITS
from moe_jax.report.elements import Code, Table, long_table, not_shown
from moe_jax.sweep import results
from moe_jax.sweep.results import Row
from moe_jax.text import fixed, percent, short


@dataclasses.dataclass(frozen=True)
class TasksSection:
    """Sentences, and a table of each run."""

    sentences: Sequence[str]
    table: Table
    not_shown: int  # runs beyond the table's rows


def tasks(rows: Sequence[Row]) -> TasksSection | None:
    """The section; None where no finished run was scored on a task."""
    done, names = scored(rows)
    if not names:
        return None
    columns = [c for name in names for c in (name + ACCURACY, name + BITS) if any(c in row for row in done)]
    cells = [
        [Code(row["name"]), short(row["sparsity"]), fixed(row["eval_loss"], 4), *(_value(row, c) for c in columns)]
        for row in done
    ]
    headings = ["run", ">S", ">held-out loss", *(_heading(c) for c in columns)]
    effects = downstream.effects(done, names)
    return TasksSection(
        sentences=[effect.sentence for effect in effects]
        or ["Too few runs of different loss and sparsity were scored to tell what sparsity does at equal loss."],
        table=long_table(
            headings, cells, "Accuracy by log-likelihood, and bits per byte of the right answers; ± one standard error."
        ),
        not_shown=not_shown(cells),
    )


def scored(rows: Sequence[Row]) -> tuple[list[Row], list[str]]:
    """(finished runs that were scored on a task, the tasks)."""
    done = [row for row in rows if row["status"] == "done"]
    names = downstream.tasks(results.evaluated_columns(done))
    return [row for row in done if any(row.get(name + BITS) is not None for name in names)], names


def _heading(column: str) -> str:
    if column.endswith(BITS):
        return f">{column.removesuffix(BITS)}: bits/byte"
    return f">{column.removesuffix(ACCURACY)}: accuracy"


def _value(row: Row, column: str) -> str:
    """A metric and its standard error; a dash for none."""
    value, stderr = row.get(column), row.get(f"{column}_stderr")
    write = percent if column.endswith(ACCURACY) else lambda v: fixed(v, 3)
    return write(value) if value is None or stderr is None else f"{write(value)} ± {write(stderr)}"
