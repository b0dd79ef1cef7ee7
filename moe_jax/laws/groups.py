"""One law fitted to each group of a table's rows, such as its datasets, and to each of several losses.

    for one in laws.fit_groups("runs.csv", "chinchilla", group_by="dataset", losses=["loss_web", "loss_code"]):
        one.group, one.loss, one.fit.law.coefficients

Each fit is an ordinary one, on the rows that also meet `group_by == value`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws import limits, rows, user_file
from moe_jax.laws.fitting import Fit, fit


@dataclass(frozen=True)
class GroupFit:
    """The fit of one group and one loss, or why there is none."""

    group: str  # the value of the group's column; "" where the rows are not grouped
    loss: str  # the column
    fit: Fit | None
    refused: str = ""  # the sentence of laws.fit that refused this group


def fit_groups(
    table,
    law: str = "krajewski2024",
    *,
    group_by: str = "",
    losses: Sequence[str] = ("eval_loss",),
    columns: Mapping[str, str] | None = None,
    where: str = "",
    progress: Callable[[str, int, int], None] | None = None,
    **options: object,
) -> Iterator[GroupFit]:
    """Fits the law to each value of the column `group_by` (in the order of the rows) and to each loss, one by one.

    Other arguments: as for laws.fit. A group that cannot be fitted is given with its reason, so that the others are
    there. Raises UserError before the first fit for a column that is missing or has empty cells, and for more fits than
    limits.py allows."""
    groups = [("", where)]
    if group_by:
        groups = rows.groups(rows.load(table)[0], user_file.find_form(law), columns, where, group_by)
    limits.refuse_fits(len(groups) * len(losses))
    for label, condition in groups:
        for loss in losses:
            named = " ".join(filter(None, (label, loss if len(losses) > 1 else "")))
            told = progress and partial(_told, progress, named)
            shared = {"columns": columns, "where": condition, "progress": told, **options}
            try:
                yield GroupFit(label, loss, fit(table, law, loss=loss, **shared))
            except errors.UserError as e:
                yield GroupFit(label, loss, None, str(e))


def tabulate(fits: Sequence[GroupFit]) -> pd.DataFrame:
    """A row for each coefficient of each fit: group, loss, coefficient, value, low, high, and whether it is identified.

    low and high are NaN without bootstrap samples. Groups without a fit have no rows."""
    found = []
    for one in fits:
        law = one.fit.law if one.fit else None
        for name, value in law.coefficients.items() if law else ():
            low, high = law.intervals.get(name, (np.nan, np.nan))
            found.append((one.group, one.loss, name, value, low, high, name not in law.identifiability.unidentified))
    return pd.DataFrame(found, columns=["group", "loss", "coefficient", "value", "low", "high", "identified"])


def _told(progress: Callable[[str, int, int], None], named: str, stage: str, done: int, total: int) -> None:
    progress(f"{named}: {stage}" if named else stage, done, total)
