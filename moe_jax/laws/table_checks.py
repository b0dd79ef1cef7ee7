"""Checks of a table before a law is fitted to it. Each refusal is one sentence that names the column and the row."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws import number_texts
from moe_jax.text import count, one_line

_NATS = 20.0  # a uniform guess over 2^28 tokens loses 19.4 nats
_COUNTED = 1000  # no run has fewer parameters or tokens
_IDENTITIES = ("name", "config_hash")
_INDICES = ("Unnamed: ", "__index_level_")  # what pandas calls the row numbers that it wrote


def one_of_each_name(path: object, names: Sequence) -> list[str]:
    """Names of columns as texts without spaces round them. Raises UserError where two columns of a file share one."""
    stripped = [str(name).strip() for name in names]
    if twice := [name for i, name in enumerate(stripped) if name in stripped[:i]]:
        raise errors.UserError(
            f"{path} has {stripped.count(twice[0])} columns named {one_line(twice[0])!r}; rename or delete one of them"
        )
    return stripped


def listed(table: pd.DataFrame) -> str:
    """The names of a table's columns, also of those that --columns made, for a sentence."""
    return one_line(", ".join(map(str, table.columns)))


def numbers(
    table: pd.DataFrame, column: str, names: Sequence[str], hint: str, share: bool = False, *, zero: bool = False
) -> np.ndarray:
    """A column as float64 (rows,): finite, and above zero (a share: in [0, 1); `zero`: or zero), texts by the rule of
    number_texts.

    Raises UserError, which names the cell, where it is not.

    names: of the rows; hint: which flag names another column."""
    if column not in table.columns:
        raise errors.UserError(f"there is no column {column!r} ({hint}); the columns are {listed(table)}")
    values, empty = number_texts.of_column(table[column]), number_texts.is_empty(table[column])
    unread = np.flatnonzero(np.isnan(values) & ~empty)
    outside = (
        ((values < 0) | (values >= 1), "outside [0, 1)", "a law needs a share of a whole")
        if share
        else (values < 0, "negative", "a weight is zero or above")
        if zero
        else (values <= 0, "zero or negative", "a law needs numbers above zero")
    )
    for bad, what, rule in (
        (empty, "empty or NaN", "a finished run has a number"),
        (np.isnan(values), "not a number", number_texts.rule_for(table[column].iloc[unread[0]]) if len(unread) else ""),
        (np.isinf(values), "infinite", "a law needs numbers"),
        outside,
    ):
        if bad.any():
            shown = "" if bad is empty else f" ({one_line(str(table[column][bad].iloc[0]))})"
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


def refuse_repeats(table: pd.DataFrame, names: Sequence[str]) -> None:
    """Raises UserError for a run that appears twice: a row that is equal to another in all columns, or in its name or
    config_hash."""
    for key in _IDENTITIES:
        if key in table.columns and (twice := (table[key].notna() & table[key].duplicated()).to_numpy()).any():
            raise errors.UserError(
                f"{count(int(twice.sum()), 'row')} repeat a {key}, first {table[key][twice].iloc[0]!r}:"
                " a run counts once"
            )
    numbered = [c for c in table.columns if str(c).startswith(_INDICES)]  # by pandas, so that no two rows are equal
    if (twice := table.drop(columns=numbered).duplicated().to_numpy()).any():
        raise errors.UserError(
            f"{count(int(twice.sum()), 'row')} equal another in all columns, first {first(names, twice)}: a run counts"
            " once; runs that were repeated differ in a column, such as seed"
        )


def ties(axes: Mapping[str, np.ndarray], losses: np.ndarray, names: Sequence[str]) -> str:
    """A sentence about rows with another's axes and loss, which may be copies under new names; "" without any.

    Losses that are printed in few digits tie across seeds and learning rates."""
    twice = pd.DataFrame({**axes, "loss": losses}).duplicated().to_numpy()
    if not twice.any():
        return ""
    i = int(np.flatnonzero(twice)[0])
    at = ", ".join(f"{s}={v[i]:g}" for s, v in axes.items())
    return (
        f"{count(int(twice.sum()), 'row')} with another's axes and loss, first {names[i]} ({at}): each counts as a run"
        " of its own; --best_of keeps one of each cell"
    )


def first(names: Sequence[str], mask: np.ndarray) -> str:
    """The name of the first row in a mask."""
    return str(names[int(np.flatnonzero(mask)[0])])
