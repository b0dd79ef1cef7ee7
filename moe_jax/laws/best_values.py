"""The best learning rate or batch of each cell of a sweep: what a law of rates or batches is fitted to."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws import table_checks
from moe_jax.laws.forms import TUNED, Axes
from moe_jax.laws.rows import CONTEXT, Rows
from moe_jax.text import count

_NAMED = 3  # cells that a sentence names


@dataclass(frozen=True)
class _Best:
    """What the runs of one cell say about its best value."""

    run: int  # the row of the lowest loss
    value: float | None  # None: they do not enclose it
    edge: str = ""  # smallest | largest: where the lowest loss is that of the last value tried


def of_cells(rows: Rows, form: Axes) -> Rows:
    """One row for each cell: `losses` holds the best value of the form's quantity, the other columns are those of the
    cell's lowest run.

    A cell is the runs that agree in the form's axes and in the columns that change a law's coefficients (CONTEXT).
    Seeds are averaged; where the other one of rate and batch varies and is no axis, each value counts with its lowest
    loss. The best value is the minimum of the parabola in its logarithm through the lowest loss and its two neighbours.
    Cells whose lowest loss is at the smallest or largest value tried are left out, and named. Raises UserError where no
    cell is left."""
    column = form.quantity
    tried = table_checks.numbers(
        rows.table, column, rows.names, f"{form.name} is fitted to its best values; --columns {column}=… names another"
    )
    keys, profiled = _keys(rows, column)
    frame = pd.DataFrame({"tried": tried, "loss": rows.losses, **keys, **profiled})
    codes = frame.groupby(list(keys), sort=False, dropna=False).ngroup().to_numpy()
    groups = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    found = [_best_of_cell(frame.iloc[index], index, list(profiled)) for index in groups]
    kept = [best for best in found if best.value is not None]
    notes = _notes(column, rows, found, kept, profiled)
    if not kept:
        raise errors.UserError(f"no cell encloses its best {column}: {'; '.join(notes)}")
    order = np.array([best.run for best in kept])
    cells = rows.take(order)
    return replace(cells, losses=np.array([best.value for best in kept]), notes=(*rows.notes, *notes))


def _keys(rows: Rows, column: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(the columns that tell cells apart, the other tuned column where it varies within them), each by a name."""
    axes = set(rows.sources.values())
    keys = dict(rows.columns)
    keys |= {c: rows.table[c].to_numpy() for c in CONTEXT if c in rows.table.columns and c not in {*axes, *TUNED}}
    others = [c for c in TUNED if c != column and c in rows.table.columns and c not in axes]
    return keys, {c: rows.table[c].to_numpy() for c in others if rows.table[c].nunique() > 1}


def _best_of_cell(frame: pd.DataFrame, index: np.ndarray, profiled: list[str]) -> _Best:
    """frame: the cell's runs (tried, loss); index: their rows in the whole table."""
    run = int(index[frame["loss"].to_numpy().argmin()])
    means = frame.groupby(["tried", *profiled], dropna=False)["loss"].mean()
    curve = means.groupby("tried").min()  # sorted by the value tried
    values, losses = curve.index.to_numpy(), curve.to_numpy()
    i = int(losses.argmin())
    if len(values) < 3:
        return _Best(run, None)
    if i in (0, len(values) - 1):
        return _Best(run, None, "smallest" if i == 0 else "largest")
    return _Best(run, float(np.exp(_lowest(np.log(values[i - 1 : i + 2]), losses[i - 1 : i + 2]))))


def _lowest(x: np.ndarray, y: np.ndarray) -> float:
    """Where the parabola through three points, the middle one the lowest, has its minimum."""
    left, right = (y[0] - y[1]) / (x[1] - x[0]), (y[2] - y[1]) / (x[2] - x[1])
    if left + right <= 0:  # three equal losses
        return float(x[1])
    return float(0.5 * (x[0] + x[1]) + 0.5 * (x[2] - x[0]) * left / (left + right))


def _notes(column: str, rows: Rows, found: list[_Best], kept: list[_Best], profiled: Iterable[str]) -> list[str]:
    said = [
        f"{count(len(kept), 'cell')} of {len(found)} with a best {column}, of {count(len(rows), 'run')}: the minimum of"
        " the parabola in its logarithm through the lowest loss and its neighbours"
    ]
    said += [f"each {column} counts with its lowest loss over {other}" for other in profiled]
    for edge in ("smallest", "largest"):
        if at := [best for best in found if best.edge == edge]:
            some = ", ".join(f"{rows.names[best.run]}" for best in at[:_NAMED]) + (", …" if len(at) > _NAMED else "")
            said.append(
                f"{count(len(at), 'cell')} left out: the lowest loss is at the {edge} {column} tried ({some}), so the"
                f" best lies beyond; try {'smaller' if edge == 'smallest' else 'larger'} ones, or values between where"
                " these diverged: runs that are not done do not count"
            )
    if few := [best for best in found if best.value is None and not best.edge]:
        said.append(f"{count(len(few), 'cell')} left out: a best {column} needs three values, the lowest in the middle")
    return said
