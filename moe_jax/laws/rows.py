"""From a results file to the arrays that a law is fitted to. Every refusal is one sentence; no row is dropped
silently."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from etils import epath

from moe_jax import errors
from moe_jax.laws.forms import Form
from moe_jax.tables import count

# Columns of results.csv that a law may not know as an axis but whose value its coefficients depend on.
CONTEXT = (
    "expansion_rate", "active_rate", "sparsity", "granularity", "n_experts", "top_k", "router", "sequence_length",
    "vocabulary_size", "store_sha256", "dispatch", "schedule", "batch_tokens",
)  # fmt: skip
_COUNTS = ("n_total_nonemb", "n_active_nonemb", "n_total", "n_active", "tokens")  # never below a thousand in earnest
_NATS = 20.0  # a uniform guess over 2^28 tokens loses 19.4 nats


@dataclass(frozen=True)
class Rows:
    """The runs that a fit uses, in the file's order. columns: by symbol of the form, float64; losses: nats per
    token."""

    columns: Mapping[str, np.ndarray]
    losses: np.ndarray
    names: tuple[str, ...]
    table: pd.DataFrame  # the same rows with all their columns
    sources: Mapping[str, str]  # symbol -> the column (or expression) it was read from
    context: Mapping[str, object]  # columns outside the law that have one value in all rows
    notes: tuple[str, ...] = field(default=())  # what was left out and what varies besides the law's axes

    def __len__(self) -> int:
        return len(self.losses)

    def take(self, index: np.ndarray) -> "Rows":
        return Rows(
            {s: v[index] for s, v in self.columns.items()},
            self.losses[index],
            tuple(np.array(self.names, object)[index]),
            self.table.iloc[index],
            self.sources,
            self.context,
            self.notes,
        )


def read(path) -> tuple[pd.DataFrame, str]:
    """A CSV and the SHA-256 of its bytes."""
    path = epath.Path(path)
    if not path.exists():
        raise errors.UserError(
            f"there is no results file {path}; `moe-jax collect` writes one, --results names another"
        )
    content = path.read_bytes()
    try:
        table = pd.read_csv(io.BytesIO(content), skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as e:
        raise errors.UserError(f"{path} is not a readable CSV: {e}") from e
    return table, hashlib.sha256(content).hexdigest()


def select(table: pd.DataFrame, form: Form, loss: str = "eval_loss", columns: Mapping[str, str] | None = None) -> Rows:
    """The rows of `table` that `form` can be fitted to.

    columns: symbol of the form -> column of the table, where it is not the form's own default. Takes `status == "done"`
    (all rows, where there is no such column). Raises UserError for missing or non-numeric columns, NaN, values ≤ 0,
    duplicate runs, and units that cannot be meant.
    """
    sources = {**form.columns, **(columns or {})}
    notes = []
    if "status" in table.columns:
        done = table["status"].astype(str).str.strip() == "done"
        if (left := (~done).sum()) > 0:
            kinds = table.loc[~done, "status"].fillna("empty").value_counts()
            notes.append(f"{count(left, 'row')} left out, not done: " + ", ".join(f"{n} {k}" for k, n in kinds.items()))
        table = table[done]
    table = table.reset_index(drop=True)
    if table.empty:
        raise errors.UserError(f"no row is done{'; ' + notes[0] if notes else ''}: there is nothing to fit")
    names = _names(table)
    values = {s: numeric(table, column, names, _why(form, s)) for s, column in sources.items()}
    losses = numeric(table, loss, names, "--loss picks the column")
    for symbol, column in sources.items():
        _refuse_units(column, values[symbol], names)
    if (over := losses > _NATS).any():
        raise errors.UserError(
            f"{loss} is {losses[over][0]:g} in {_first(names, over)}: losses are nats per token, above {_NATS:g} is"
            " another unit (bits, perplexity, a sum)"
        )
    _refuse_duplicates(table, values, losses, names)
    context, varying = {}, []
    used = {c for c in sources.values()}
    for column in CONTEXT:
        if column in table.columns and column not in used and (seen := table[column].dropna().unique()).size:
            if len(seen) == 1:
                context[column] = seen[0].item() if hasattr(seen[0], "item") else seen[0]
            else:
                varying.append(f"{column} ({_few(seen)})")
    varying = [v for v in varying if not _follows(v.split(" ")[0], table, sources.values())]
    if varying:
        notes.append(f"{form.name} has no term for what varies besides its axes: " + "; ".join(varying))
    return Rows(values, losses, names, table, sources, context, tuple(notes))


def numeric(table: pd.DataFrame, column: str, names, hint: str) -> np.ndarray:
    """A column as float64, all finite and above zero; anything else is refused, naming the rows."""
    if column not in table.columns:
        raise errors.UserError(
            f"there is no column {column!r} ({hint}); the columns are {', '.join(map(str, table.columns))}"
        )
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    empty = table[column].isna().to_numpy()
    for bad, what in (
        (empty, "empty or NaN"),
        (np.isnan(values), "not a number"),
        (np.isinf(values), "infinite"),
        (values <= 0, "zero or negative"),
    ):
        if bad.any():
            shown = "" if bad is empty else f" ({table[column][bad].iloc[0]})"
            raise errors.UserError(
                f"{column} is {what}{shown} in {count(bad.sum(), 'row')}, first {_first(names, bad)}:"
                " a law needs numbers above zero"
            )
    return values


def spread_of_replicates(rows: Rows) -> tuple[float | None, int]:
    """Pooled standard deviation of the loss within cells that repeat all of the law's axes, and how many such cells."""
    cells: dict[tuple, list[float]] = {}
    for key, loss in zip(zip(*rows.columns.values(), strict=True), rows.losses, strict=True):
        cells.setdefault(key, []).append(loss)
    several = [np.array(c) for c in cells.values() if len(c) > 1]
    if not several:
        return None, 0
    freedom = sum(len(c) - 1 for c in several)
    return float(np.sqrt(sum(((c - c.mean()) ** 2).sum() for c in several) / freedom)), len(several)


def _names(table: pd.DataFrame) -> tuple[str, ...]:
    if "name" in table.columns:
        return tuple(map(str, table["name"]))
    return tuple(f"row {i + 1}" for i in range(len(table)))


def _why(form: Form, symbol: str) -> str:
    return f"{symbol} of {form.name}; --columns names another"


def _refuse_units(column: str, values: np.ndarray, names) -> None:
    if column not in _COUNTS:
        return
    if (small := values < 1000).any():
        raise errors.UserError(
            f"{column} is {values[small][0]:g} in {_first(names, small)}: that looks like millions or"
            " billions; counts are wanted"
        )


def _refuse_duplicates(table: pd.DataFrame, values: Mapping, losses: np.ndarray, names) -> None:
    """One run counted twice; replicated cells that differ in seed and loss are fine."""
    for key in ("name", "config_hash"):
        if key in table.columns and (twice := table[key].notna() & table[key].duplicated()).any():
            raise errors.UserError(
                f"{count(twice.sum(), 'row')} repeat a {key}, first {table[key][twice].iloc[0]!r}: a run counts once"
            )
    cells = pd.DataFrame({**values, "loss": losses})
    if (twice := cells.duplicated()).any():
        i = int(np.flatnonzero(twice)[0])
        at = ", ".join(f"{s}={v[i]:g}" for s, v in values.items())
        raise errors.UserError(
            f"{count(int(twice.sum()), 'row')} repeat another's axes and loss to the last digit, first {names[i]}"
            f" ({at}): a run counts once"
        )


def _follows(column: str, table: pd.DataFrame, axes: Iterable[str]) -> bool:
    """True where one of the law's axes settles the column, as G settles n_experts at fixed E."""
    known = [a for a in axes if a in table.columns and table[a].nunique() < len(table)]
    return any(table.groupby(a)[column].nunique(dropna=False).max() == 1 for a in known)


def _first(names, mask) -> str:
    return str(names[int(np.flatnonzero(mask)[0])])


def _few(values) -> str:
    shown = ", ".join(map(str, values[:4]))
    return shown if len(values) <= 4 else f"{shown}, … {len(values)} values"
