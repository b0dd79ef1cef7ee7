"""law.json compared with a sweep's runs: whether it was fitted to them, how far off it is, whether it can be drawn."""

import dataclasses
import hashlib
import io
import os
from typing import TYPE_CHECKING

from etils import epath

from moe_jax.errors import UserError
from moe_jax.sweep.results import COLUMNS

if TYPE_CHECKING:
    from moe_jax.laws import Fit, Law


@dataclasses.dataclass(frozen=True)
class CheckedLaw:
    """A law, and what a reader must know before using it on these runs."""

    law: "Law"
    fit: "Fit | None"  # the law beside the runs' losses; None where they cannot be compared
    drawable: bool  # whether the law's curve may be drawn through held-out losses
    remarks: tuple[str, ...]


def check(path: epath.Path, results_csv: bytes) -> CheckedLaw | None:
    """The law in `path` compared with the runs in `results_csv`; None where there is no law.

    Raises UserError where the file is not a fitted law."""
    if not path.exists():
        return None
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # importing laws starts JAX, and reading a law needs no accelerator
    from moe_jax import laws

    law = laws.load(path)
    if "rmse_fit" not in law.errors:
        raise UserError(f"{path} holds coefficients that were not fitted to any runs")
    remarks = []
    if hashlib.sha256(results_csv).hexdigest() != law.data.sha256:
        remarks.append(
            "The law was fitted to another results.csv than these runs give now; run moe-jax collect and moe-jax fit to"
            " update it."
        )
    of_losses = law.form.quantity == laws.LOSS
    drawable = of_losses and law.data.loss == "eval_loss" and set(law.data.columns.values()) <= set(COLUMNS)
    if of_losses and not drawable:
        axes = ", ".join(f"{symbol} = {column}" for symbol, column in law.data.columns.items())
        remarks.append(f"The law gives {law.data.loss} over {axes}, so it is not drawn through the held-out losses.")
    fit = None
    try:
        fit = _fit_of(law, results_csv)
    except UserError as e:
        remarks.append(f"The law cannot be compared with these runs: {e}.")
    return CheckedLaw(law, fit, drawable and fit is not None, tuple(remarks))


def _fit_of(law: "Law", results_csv: bytes) -> "Fit":
    """The law beside the rows and hold-outs of its fit. Raises UserError where the runs lack a column that it needs."""
    import pandas as pd

    from moe_jax import laws

    rows, held_out = laws.rows_of(law, pd.read_csv(io.BytesIO(results_csv), skipinitialspace=True))
    return laws.Fit(law, rows, held_out, law.value_at(rows.columns), laws.Objective.from_json(law.method.objective))
