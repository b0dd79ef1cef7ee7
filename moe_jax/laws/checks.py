"""What a table must be before a law is fitted to it; each refusal is one sentence that names the column and the row."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.tables import count

_NATS = 20.0  # a uniform guess over 2^28 tokens loses 19.4 nats
_COUNTED = 1000  # no run has fewer parameters or tokens


def numbers(table: pd.DataFrame, column: str, names: Sequence[str], hint: str, share: bool = False) -> np.ndarray:
    """A column as float64: finite, and above zero (a share: in [0, 1)). names: what to call each row."""
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
    """Losses in nats, parameters and tokens as counts: what can only be another unit is refused."""
    if (over := losses > _NATS).any():
        raise errors.UserError(
            f"{loss} is {losses[over][0]:g} in {first(names, over)}: losses are nats per token, above {_NATS:g} is"
            " another unit (bits, perplexity, a sum)"
        )
    for symbol in {"N", "D"} & set(axes):
        if (small := axes[symbol] < _COUNTED).any():
            raise errors.UserError(
                f"{sources[symbol]} is {axes[symbol][small][0]:g} in {first(names, small)}: that looks like millions or"
                " billions; counts are wanted"
            )


def duplicates(table: pd.DataFrame, axes: Mapping[str, np.ndarray], losses: np.ndarray, names: Sequence[str]) -> None:
    """One run counted twice is refused; cells replicated with another seed and loss are fine."""
    for key in ("name", "config_hash"):
        if key in table.columns and (twice := table[key].notna() & table[key].duplicated()).any():
            raise errors.UserError(
                f"{count(int(twice.sum()), 'row')} repeat a {key}, first {table[key][twice].iloc[0]!r}:"
                " a run counts once"
            )
    cells = pd.DataFrame({**axes, "loss": losses})
    if (twice := cells.duplicated()).any():
        i = int(np.flatnonzero(twice)[0])
        at = ", ".join(f"{s}={v[i]:g}" for s, v in axes.items())
        raise errors.UserError(
            f"{count(int(twice.sum()), 'row')} repeat another's axes and loss to the last digit, first {names[i]}"
            f" ({at}): a run counts once"
        )


def first(names: Sequence[str], mask: np.ndarray) -> str:
    return str(names[int(np.flatnonzero(mask)[0])])
