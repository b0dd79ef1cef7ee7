"""law.json beside the runs that it should describe: is it theirs, how far is it off, can it be drawn through them."""

import dataclasses
import hashlib
import io
import os
from typing import TYPE_CHECKING

from etils import epath

from moe_jax.errors import UserError
from moe_jax.figures import LABELS, Comparison
from moe_jax.findings import AXES
from moe_jax.results import COLUMNS

if TYPE_CHECKING:
    from moe_jax.laws import Law


@dataclasses.dataclass(frozen=True)
class CheckedLaw:
    """A law with what must be said beside it."""

    law: "Law"
    comparison: Comparison | None  # None where these runs are not what the law can be compared with
    drawable: bool  # through held-out losses
    remarks: tuple[str, ...]


def check(path: epath.Path, results_csv: bytes) -> CheckedLaw | None:
    """The law in `path`, or None where there is none; `results_csv` is what the runs give now.

    Raises UserError where the file is not a law."""
    if not path.exists():
        return None
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # laws are fitted, and imported, with JAX; reading one needs no chip
    from moe_jax import laws

    law = laws.load(path)
    if "rmse_fit" not in law.errors:
        raise UserError(f"{path} holds coefficients that were not fitted to any runs")
    remarks = []
    if hashlib.sha256(results_csv).hexdigest() != law.data_sha256:
        remarks.append(
            "The law was fitted to another results.csv than these runs give now; moe-jax collect and moe-jax fit bring "
            "it up to date."
        )
    drawable = law.loss == "eval_loss" and set(law.columns.values()) <= set(COLUMNS)
    if not drawable:
        of = ", ".join(f"{symbol} = {column}" for symbol, column in law.columns.items())
        remarks.append(f"The law is one of {law.loss} over {of}; it is not drawn through the held-out losses.")
    comparison = None
    try:
        comparison = _compare(law, results_csv)
    except UserError as e:
        remarks.append(f"The law cannot be compared with these runs: {e}.")
    return CheckedLaw(law, comparison, drawable and comparison is not None, tuple(remarks))


def _compare(law: "Law", results_csv: bytes) -> Comparison:
    """The same rows and hold-outs as the fit's. Raises UserError where the rows lack what the law needs."""
    import pandas as pd

    from moe_jax import laws

    used, held_out = laws.rows_of(law, pd.read_csv(io.BytesIO(results_csv), skipinitialspace=True))
    return Comparison(
        measured=used.losses,
        predicted=law.loss_at(used.columns),
        held_out=held_out,
        columns=dict(used.columns),
        labels={
            symbol: LABELS[symbol] if AXES.get(symbol) == column else f"{symbol}: {column}"
            for symbol, column in used.sources.items()
        },
        rmse=law.errors["rmse_fit"],
    )
