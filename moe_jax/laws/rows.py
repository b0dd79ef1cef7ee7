"""Reads and selects the rows that a law is fitted to. No row is dropped silently."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws import expressions, number_texts, row_weights, table_checks
from moe_jax.laws.forms import LOSS, Axes
from moe_jax.laws.row_weights import RowWeights
from moe_jax.laws.table_files import flat, read
from moe_jax.text import count

# Columns of results.csv that are rarely axes of a law but change its coefficients.
CONTEXT = (
    "expansion_rate", "active_rate", "sparsity", "granularity", "n_experts", "top_k", "router", "sequence_length",
    "vocab_size", "store_sha256", "dispatch", "schedule", "optimizer", "batch_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """The runs that a fit uses, in the file's order."""

    columns: Mapping[str, np.ndarray]  # by the form's symbols, (rows,) float64
    losses: np.ndarray  # (rows,) nats per token
    names: tuple[str, ...]  # of the runs
    table: pd.DataFrame  # the same rows with all their columns
    sources: Mapping[str, str]  # symbol -> the column or expression it was read from
    constants: Mapping[str, object]  # columns outside the law with one value in all rows
    notes: tuple[str, ...] = ()  # sentences: rows left out, columns that vary besides the law's axes
    weights: RowWeights | None = None  # how much each row counts; None: all the same

    def __len__(self) -> int:
        return len(self.losses)

    def take(self, index: np.ndarray) -> "Rows":
        """The rows at `index`, in its order."""
        return replace(
            self,
            columns={s: v[index] for s, v in self.columns.items()},
            losses=self.losses[index],
            names=tuple(self.names[i] for i in index),
            table=self.table.iloc[index],
            weights=None if self.weights is None else self.weights.take(index),
        )


def load(table: pd.DataFrame | Mapping | str | os.PathLike) -> tuple[pd.DataFrame, str]:
    """A table as a DataFrame, read where it is a path, and the SHA-256 of its file or of its CSV.

    Raises UserError as table_files.read does, and for what is no table or has two columns of one name."""
    if isinstance(table, str | os.PathLike):
        return read(table)
    try:
        frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(dict(table))
    except (TypeError, ValueError) as e:
        raise errors.UserError(f"a table is a file, a DataFrame, or columns of one length by name: {e}") from e
    table_checks.one_of_each_name("the table", frame.columns)
    return flat(frame), hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()


def select(
    table: pd.DataFrame,
    form: Axes,
    loss: str = "eval_loss",
    columns: Mapping[str, str] | None = None,
    where: str = "",
    best_of: str = "",
    weighting: str = "",
) -> Rows:
    """The rows of `table` that `form` is fitted to: finished runs that meet the condition `where`.

    A run is finished if its status is done, or if the table has no status column. columns: a symbol of the form, or the
    name of a new column -> a column or an arithmetic expression (see expressions). best_of: a column, such as
    learning_rate; each cell keeps the run with the lowest loss. weighting: as in row_weights, such as "sigma=COLUMN".
    Raises UserError for missing or non-numeric columns, NaN, values ≤ 0, runs that appear twice after best_of, and
    implausible units."""
    table, sources, notes = _asked_for(table, form, columns, where)
    names = _names(table)
    table = table.reset_index(drop=True)
    axes = {
        s: table_checks.numbers(table, source, names, f"{s} of {form.name}; --columns names another", s in form.shares)
        for s, source in sources.items()
    }
    losses = table_checks.numbers(table, loss, names, "--loss picks the column")
    table_checks.units(axes, losses, loss, sources, names)
    rows = Rows(axes, losses, names, table, sources, {})
    if best_of:
        rows, said = _best_of(rows, best_of)
        notes.append(said)
    table_checks.refuse_repeats(rows.table, rows.names)
    said = table_checks.ties(rows.columns, rows.losses, rows.names)
    if said and form.quantity == LOSS:  # the runs of a cell of rates share its axes
        notes.append(said)
    if weighting:
        rows, said = _weighted(rows, weighting)
        notes += said
    constants, varying = _columns_beside(rows, form.quantity)
    if varying:
        notes.append(f"{form.name} has no term for columns that vary besides its axes: " + "; ".join(varying))
    return replace(rows, constants=constants, notes=(*notes, *_repeating(rows, form)))


def groups(
    table: pd.DataFrame, form: Axes, columns: Mapping[str, str] | None, where: str, by: str
) -> list[tuple[str, str]]:
    """(value as a text, `where` for the rows with it) of each value of the column `by`, in the order of the rows.

    Raises UserError where there is no such column, or cells of the rows to be fitted are empty."""
    table, _, _ = _asked_for(table, form, columns, where)
    if by not in table.columns or "`" in by:
        raise errors.UserError(
            f"there is no column {by!r} (--group_by names it); the columns are {table_checks.listed(table)}"
        )
    if (empty := number_texts.is_empty(table[by])).any():
        raise errors.UserError(
            f"{by} is empty in {count(int(empty.sum()), 'row')}, first {table_checks.first(_names(table), empty)}: each"
            " row belongs to a group; --where leaves rows out"
        )
    before = f"({where}) and " if where else ""
    values = [v.item() if isinstance(v, np.generic) else v for v in table[by].unique()]
    plain = [v if isinstance(v, int | float | str) else str(v) for v in values]
    return [(str(v), f"{before}`{by}` == " + repr(v).replace("`", "\\x60")) for v in plain]


def spread_of_replicates(rows: Rows) -> tuple[float | None, int]:
    """Pooled standard deviation of the loss (nats) within replicated cells, and the number of these cells.

    A cell is one point of the law's axes; (None, 0) where no cell has several runs."""
    cells: dict[tuple, list[float]] = {}
    for key, loss in zip(zip(*rows.columns.values(), strict=True), rows.losses, strict=True):
        cells.setdefault(key, []).append(loss)
    several = [np.array(c) for c in cells.values() if len(c) > 1]
    if not several:
        return None, 0
    freedom = sum(len(c) - 1 for c in several)
    return float(np.sqrt(sum(((c - c.mean()) ** 2).sum() for c in several) / freedom)), len(several)


def _asked_for(
    table: pd.DataFrame, form: Axes, columns: Mapping[str, str] | None, where: str
) -> tuple[pd.DataFrame, dict[str, str], list[str]]:
    """(finished rows that meet `where`, the source of each symbol, sentences); the index counts the rows given."""
    table, notes = _finished(table.reset_index(drop=True))
    table, sources = _with_columns(table, form, columns or {})
    if where:
        kept = expressions.mask(table, where)
        notes.append(f"{count(int((~kept).sum()), 'row')} of {len(table)} left out by --where")
        table = table[kept]
        if table.empty:
            raise errors.UserError(f"no row meets --where {where!r}: there is nothing to fit")
    return table, sources, notes


def _finished(table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    if "status" not in table.columns:
        if table.empty:
            raise errors.UserError("the table has no rows: there is nothing to fit")
        return table, []
    done = table["status"].astype(str).str.strip() == "done"
    notes = []
    if not done.all():
        kinds = table.loc[~done, "status"].fillna("empty").value_counts()
        said = ", ".join(f"{n} {kind}" for kind, n in kinds.items())
        notes.append(f"{count(int((~done).sum()), 'row')} left out, not done: {said}")
    if not done.any():
        raise errors.UserError("; ".join(["no row is done", *notes]) + ": there is nothing to fit")
    return table[done], notes


def _with_columns(table: pd.DataFrame, form: Axes, columns: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, str]]:
    """The table with the columns that `columns` defines, and the source column of each symbol of the form.

    A symbol becomes a column too, for later expressions and conditions, unless the table has one of its name."""
    sources = dict(form.columns)
    for name, text in columns.items():
        values = table[text] if text in table.columns else expressions.column(table, text)
        if name in form.symbols:
            sources[name] = text
            table = table if text in table.columns else table.assign(**{text: values})
        if name not in form.symbols or name not in table.columns:
            table = table.assign(**{name: values})
    return table, sources


def _weighted(rows: Rows, weighting: str) -> tuple[Rows, list[str]]:
    """The rows with how much each counts, without those of weight zero, and sentences."""
    kind, column = row_weights.parse(weighting)
    hint = f"--{kind} names it"
    values = table_checks.numbers(rows.table, column, rows.names, hint, zero=kind == row_weights.WEIGHTS)
    said, counted = [], np.flatnonzero(values > 0)
    if not len(counted):
        raise errors.UserError(f"{column} is zero in all rows: --weights leaves nothing to fit")
    if len(counted) < len(rows):
        said.append(f"{count(len(rows) - len(counted), 'row')} of {len(rows)} left out: {column} is zero")
    rows, values = rows.take(counted), values[counted]
    said.append(f"rows are weighted by --{kind}={column}, {values.min():.4g} to {values.max():.4g}")
    return replace(rows, weights=RowWeights(kind, values)), said


def _best_of(rows: Rows, column: str) -> tuple[Rows, str]:
    """The best run of each cell (the law's axes, and the seed where there is one), and a sentence."""
    tried = table_checks.numbers(rows.table, column, rows.names, "--best-of names it")
    keys = dict(rows.columns)
    if "seed" in rows.table.columns:
        keys["seed"] = rows.table["seed"].to_numpy()
    cells = pd.DataFrame({**keys, "loss": rows.losses, "tried": tried}).groupby(list(keys), sort=False, dropna=False)
    best = np.sort(cells["loss"].idxmin().to_numpy())
    low, high = cells["tried"].transform("min").to_numpy()[best], cells["tried"].transform("max").to_numpy()[best]
    at_edge = int(((tried[best] == low) | (tried[best] == high))[low < high].sum())
    said = f"{len(best)} of {len(rows)} runs kept, the best {column} of each cell"
    if at_edge:
        said += f"; in {count(at_edge, 'cell')} it is the smallest or largest tried"
    return rows.take(best), said


def _columns_beside(rows: Rows, quantity: str) -> tuple[dict[str, object], list[str]]:
    """The columns of CONTEXT with one value, and descriptions of those that vary independently of the law's axes and
    of its quantity."""
    constants, varying = {}, []
    axes = {*rows.sources.values(), quantity}
    for column in CONTEXT:
        if column not in rows.table.columns or column in axes:
            continue
        seen = rows.table[column].dropna().unique()
        if len(seen) == 1:
            constants[column] = seen[0].item() if hasattr(seen[0], "item") else seen[0]
        elif len(seen) > 1 and not _follows(column, rows.table, axes):
            shown = ", ".join(map(str, seen[:4])) + (f", … {len(seen)} values" if len(seen) > 4 else "")
            varying.append(f"{column} ({shown})")
    return constants, varying


def _repeating(rows: Rows, form: Axes) -> list[str]:
    """A sentence about runs that read tokens again, where the form has no term for that."""
    table = rows.table
    if not {"tokens", "unique_tokens"} <= set(table.columns) or "unique_tokens" in rows.sources.values():
        return []
    tokens, unique = (pd.to_numeric(table[c], errors="coerce") for c in ("tokens", "unique_tokens"))
    times = tokens / unique.where(unique > 0)
    if not (again := times > 1.01).any():
        return []
    return [
        f"{count(int(again.sum()), 'run')} read tokens again, up to {times.max():.3g} times, and {form.name} takes them"
        " for new ones; muennighoff2023 has a term for repetition"
    ]


def _follows(column: str, table: pd.DataFrame, axes: Iterable[str]) -> bool:
    """True where one of the law's axes determines the column, as G determines n_experts at fixed E."""
    known = [a for a in axes if a in table.columns and table[a].nunique() < len(table)]
    return any(table.groupby(a)[column].nunique(dropna=False).max() == 1 for a in known)


def _names(table: pd.DataFrame) -> tuple[str, ...]:
    if "name" in table.columns:
        return tuple(map(str, table["name"]))
    return tuple(f"row {i + 1}" for i in table.index)  # counted in the file, below its header
