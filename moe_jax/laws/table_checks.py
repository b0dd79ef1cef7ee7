"""Checks of a table before a law is fitted to it. Each refusal is one sentence that names the column and the row."""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.text import count

_NATS = 20.0  # a uniform guess over 2^28 tokens loses 19.4 nats
_COUNTED = 1000  # no run has fewer parameters or tokens


def widths(path: object, content: bytes) -> None:
    """Raises UserError for a row of a CSV file with another number of fields than the header.

    pandas takes a surplus field for an index, and shifts all columns by one."""
    rows = csv.reader(io.StringIO(content.decode(errors="replace"), newline=""), skipinitialspace=True)
    try:
        fields = [(rows.line_num, len(row)) for row in rows if "".join(row)]
    except csv.Error as e:
        raise errors.UserError(f"{path} is not a readable CSV: {e}") from e
    for line, n in fields:
        if n != fields[0][1]:
            raise errors.UserError(
                f"{path}: line {line} has {count(n, 'field')}, the header {fields[0][1]}; a row"
                " has a field for each column, and no comma at its end"
            )


def numbers(table: pd.DataFrame, column: str, names: Sequence[str], hint: str, share: bool = False) -> np.ndarray:
    """A column as float64 (rows,): finite, and above zero (a share: in [0, 1)). Raises UserError where it is not.

    names: of the rows; hint: which flag names another column."""
    if column not in table.columns:
        raise errors.UserError(
            f"there is no column {column!r} ({hint}); the columns are {', '.join(map(str, table.columns))}"
        )
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(np.float64)
    empty = table[column].isna().to_numpy()
    outside = (
        ((values < 0) | (values >= 1), "outside [0, 1)", "a law needs a share of a whole")
        if share
        else (values <= 0, "zero or negative", "a law needs numbers above zero")
    )
    for bad, what, rule in (
        (empty, "empty or NaN", "a finished run has a number"),
        (np.isnan(values), "not a number", "a law needs numbers"),
        (np.isinf(values), "infinite", "a law needs numbers"),
        outside,
    ):
        if bad.any():
            shown = "" if bad is empty else f" ({table[column][bad].iloc[0]})"
            raise errors.UserError(
                f"{column} is {what}{shown} in {count(int(bad.sum()), 'row')}, first {first(names, bad)}: {rule}"
            )
    return values


def units(
    axes: Mapping[str, np.ndarray], losses: np.ndarray, loss: str, sources: Mapping, names: Sequence[str]
) -> None:
    """Raises UserError for losses that cannot be nats, and for parameters or tokens that cannot be counts."""
    if (over := losses > _NATS).any():
        raise errors.UserError(
            f"{loss} is {losses[over][0]:g} in {first(names, over)}: losses are nats per token; above {_NATS:g} is"
            " another unit (bits, perplexity, a sum)"
        )
    for symbol in {"N", "D"} & set(axes):
        if (small := axes[symbol] < _COUNTED).any():
            raise errors.UserError(
                f"{sources[symbol]} is {axes[symbol][small][0]:g} in {first(names, small)}: that looks like millions or"
                " billions; give counts"
            )


def duplicates(table: pd.DataFrame, axes: Mapping[str, np.ndarray], losses: np.ndarray, names: Sequence[str]) -> None:
    """Raises UserError for a run that appears twice. Cells replicated with another seed and loss are fine."""
    for key in ("name", "config_hash"):
        if key in table.columns and (twice := table[key].notna() & table[key].duplicated()).any():
            raise errors.UserError(
                f"{count(int(twice.sum()), 'row')} repeat a {key}, first {table[key][twice].iloc[0]!r}:"
                " a run counts once"
            )
    cells = pd.DataFrame({**axes, "loss": losses})
    others = table.drop(columns=[key for key in ("name", "config_hash") if key in table.columns])
    # Losses that are printed in few digits tie: runs that differ in another column, as the seed, are two.
    twice = cells.duplicated().to_numpy() & others.duplicated().to_numpy()
    if twice.any():
        i = int(np.flatnonzero(twice)[0])
        at = ", ".join(f"{s}={v[i]:g}" for s, v in axes.items())
        raise errors.UserError(
            f"{count(int(twice.sum()), 'row')} repeat another's axes, loss and all but its name, first {names[i]}"
            f" ({at}): a run counts once"
        )


def first(names: Sequence[str], mask: np.ndarray) -> str:
    """The name of the first row in a mask."""
    return str(names[int(np.flatnonzero(mask)[0])])
