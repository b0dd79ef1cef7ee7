"""Every prediction beside its measurement, and how good they were."""

import dataclasses
import math
from collections.abc import Sequence

from moe_jax.report import predictions
from moe_jax.report.elements import TABLE_ROWS, Badge, Code, Table
from moe_jax.report.predictions import CheckedPrediction
from moe_jax.text import fixed


@dataclasses.dataclass(frozen=True)
class PredictionsSection:
    """Sentences on how good the predictions were, and a table of all of them."""

    sentences: Sequence[str]
    table: Table


def predicted(checked: Sequence[CheckedPrediction]) -> PredictionsSection:
    """The section for at least one prediction."""
    headings = (
        "run", ">predicted", ">interval", ">measured", ">error", "inside", "stated", "at (UTC)", "outside the fit",
    )  # fmt: skip
    rows = [_row(c) for c in checked[:TABLE_ROWS]]
    laws = ", ".join(dict.fromkeys(c.law for c in checked))
    caption = (
        f"Losses in nats per token under {laws}. The interval is for one more run: what the coefficients leave "
        "open, the scatter of single runs, and beyond the data the law's own error."
    )
    return PredictionsSection(
        predictions.sentences(checked), Table(headings, rows, caption=caption, tall=len(rows) > 30)
    )


def _row(c: CheckedPrediction) -> list[str | Code | Badge]:
    return [
        Code(c.name),
        fixed(c.predicted, 4),
        "–" if math.isnan(c.low) else f"{c.low:.4f} … {c.high:.4f}",
        fixed(c.measured, 4),
        "–" if c.error is None else f"{c.error:+.4f}",
        {None: "–", True: "yes", False: Badge("no", "stale")}[c.inside],
        "before" if c.before else "after the run was finished",
        c.stated,
        c.outside,
    ]
