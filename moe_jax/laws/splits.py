"""Rows that are dropped or held out: `--drop highest:5`, `--holdout lowest:0.2`, `--holdout "tokens > 1e10"`."""

import re
from dataclasses import dataclass

import numpy as np

from moe_jax import errors
from moe_jax.laws import expressions
from moe_jax.laws.rows import Rows

_CONDITION = re.compile(r"[<>=]|\b(in|not)\b")  # what a condition has, and lowest:N or COLUMN:VALUE has not


@dataclass(frozen=True)
class Split:
    """Rules for rows that are dropped, and for rows that are held out: predicted, not fitted.

    A rule is "" (no rows), lowest:N or highest:N by loss, with a number of rows or, below 1, a share of them,
    COLUMN:VALUE, or a condition on columns of the table and symbols of the law ("flops > 5e18", "G == 1 and N > 1e9";
    see expressions.mask)."""

    drop: str = ""
    holdout: str = ""

    def to_json(self) -> dict:
        """The rules, for law.json."""
        return {"drop": self.drop, "holdout": self.holdout}

    def apply(self, rows: Rows) -> tuple[Rows, np.ndarray, tuple[str, ...]]:
        """(remaining rows, held out (rows,) bool, sentences about the dropped rows).

        Raises UserError for a rule that cannot be read, or that marks no rows or all of them."""
        said = ()
        if self.drop:
            gone = _marked(rows, self.drop, "--drop")
            said = (f"{int(gone.sum())} of {len(rows)} rows dropped ({self.drop})",)
            rows = rows.take(np.flatnonzero(~gone))
        held_out = _marked(rows, self.holdout, "--holdout") if self.holdout else np.zeros(len(rows), bool)
        return rows, held_out, said


def _marked(rows: Rows, rule: str, flag: str) -> np.ndarray:
    if _CONDITION.search(rule):
        return _where(rows, rule, flag)
    which, _, how = rule.rpartition(":")
    try:
        amount = float(how)
    except ValueError:
        amount = float("nan")
    if not which or not np.isfinite(amount):
        raise errors.UserError(
            f"{flag} is {rule!r}, must be lowest:N, highest:N or COLUMN:VALUE with a number after the colon, or a"
            " condition (flops > 5e18)"
        )
    if which in ("lowest", "highest"):
        count = round(amount * len(rows)) if amount < 1 else int(amount)
        if not 0 < count < len(rows) or (amount >= 1 and count != amount):
            raise errors.UserError(
                f"{flag} {rule} means {amount:g} of {len(rows)} rows; it must mark some rows and leave some"
            )
        order = np.argsort(rows.losses, kind="stable")
        mask = np.zeros(len(rows), bool)
        mask[order[:count] if which == "lowest" else order[-count:]] = True
        return mask
    column = rows.columns.get(which)
    if column is None:
        if which not in rows.table.columns:
            raise errors.UserError(f"{flag} {rule}: there is no column {which!r}")
        column = rows.table[which].to_numpy()
    try:
        mask = np.isclose(column.astype(np.float64), amount, rtol=1e-6, atol=1e-9)
    except (TypeError, ValueError) as e:
        raise errors.UserError(f"{flag} {rule}: column {which!r} is not numeric") from e
    if not mask.any() or mask.all():
        raise errors.UserError(
            f"{flag} {rule}: {'all' if mask.any() else 'no'} rows have that value; mark some rows and leave some"
        )
    return mask


def _where(rows: Rows, condition: str, flag: str) -> np.ndarray:
    """(rows,) True where a condition holds."""
    symbols = {s: v for s, v in rows.columns.items() if s not in rows.table.columns}
    try:
        mask = np.array(expressions.mask(rows.table.assign(**symbols), condition))
    except errors.UserError as e:  # its sentences name the flag that conditions came from first
        raise errors.UserError(str(e).replace("--where", flag, 1)) from e
    if not mask.any() or mask.all():
        raise errors.UserError(
            f"{flag} {condition}: {'all' if mask.any() else 'no'} rows meet it; mark some rows and leave some"
        )
    return mask
