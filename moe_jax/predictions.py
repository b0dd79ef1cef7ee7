"""prediction.csv: what a law said of each run and when; beside it, what came out.

A prediction that was stated before its run was done is never replaced by one that was stated after."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

from etils import epath

from moe_jax import files
from moe_jax.files import DamagedFile
from moe_jax.tables import count

_NUMBERS = ("predicted_loss", "low", "high", "level")
_TEXTS = ("name", "law", "loss", "stated", "state")


@dataclasses.dataclass(frozen=True)
class Checked:
    """A prediction and the loss that was measured, nats per token; low, high are NaN where the law has no samples."""

    name: str
    law: str
    stated: str  # when, UTC
    before: bool  # the run was not done then
    predicted: float
    low: float  # of such runs: the law's doubt and the scatter of single runs
    high: float
    level: float
    measured: float | None  # None: not done yet
    outside: str  # columns in which the run lies outside what the law was fitted on

    @property
    def error(self) -> float | None:
        """Measured − predicted."""
        return None if self.measured is None else self.measured - self.predicted

    @property
    def inside(self) -> bool | None:
        """Whether the interval held; None where there is none, or no measurement."""
        return None if self.measured is None or math.isnan(self.low) else self.low <= self.measured <= self.high


def write(path: epath.Path, rows: Sequence[Mapping]) -> int:
    """Writes the rows, but keeps what `path` already says of runs that were not done then and are now; gives how many.

    Raises UserError where what is there cannot be read: it may hold what cannot be stated again."""
    earlier = {row["name"]: row for row in read(path)} if path.exists() else {}
    kept = {
        row["name"]: earlier[row["name"]]
        for row in rows
        if row["state"] == "done" and earlier.get(row["name"], {}).get("state", "done") != "done"
    }
    rows = [dict(kept.get(row["name"], row)) for row in rows]
    columns = dict.fromkeys(key for row in rows for key in row)  # another law may have other axes
    files.write_atomic(path, files.to_csv([{key: row.get(key, "") for key in columns} for row in rows]))
    return len(kept)


def read(path: epath.Path) -> list[dict[str, object]]:
    """Rows as they were stated: numbers where numbers belong. Raises DamagedFile."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True))
        if not rows:
            raise ValueError("no rows")
        for row in rows:
            if missing := [k for k in (*_TEXTS, *_NUMBERS) if row.get(k) is None]:
                raise ValueError(f"no {missing[0]}")
            row |= {k: float(row[k]) for k in _NUMBERS}
            if not math.isfinite(row["predicted_loss"]):
                raise ValueError(f"predicted_loss is {row['predicted_loss']}")
        return rows
    except (ValueError, TypeError, csv.Error) as e:
        raise DamagedFile(f"{path}: is damaged ({e}); move it away, and predict again") from e


def check(rows: Sequence[Mapping], results: Sequence[Mapping]) -> list[Checked]:
    """Predictions beside the rows of results.csv, of runs that are done."""
    done = {row["name"]: row for row in results if row["status"] == "done"}
    checked = []
    for row in rows:
        result = done.get(row["name"])
        loss = row["loss"] if result and row["loss"] in result else "eval_loss"
        checked.append(
            Checked(
                name=row["name"],
                law=row["law"],
                stated=row["stated"],
                before=row["state"] != "done",
                predicted=row["predicted_loss"],
                low=row["low"],
                high=row["high"],
                level=row["level"],
                measured=result[loss] if result else None,
                outside=row.get("outside", ""),
            )
        )
    return checked


def say(checked: Sequence[Checked]) -> list[str]:
    """How good the predictions were; only those that were stated before the run was done count."""
    known = [c for c in checked if c.measured is not None]
    counted = [c for c in known if c.before]
    if not counted:
        why = "none of them is done yet" if not known else "those that are done were done when they were predicted"
        return [f"{count(len(checked), 'run')} predicted; {why}, so nothing says how good the predictions are."]
    rmse = math.sqrt(sum(c.error**2 for c in counted) / len(counted))
    mean = sum(c.error for c in counted) / len(counted)
    said = [
        f"{count(len(counted), 'run')} of {len(checked)} predicted before they were done and measured since: RMSE"
        f" {rmse:.4f} nats, mean error {mean:+.4f} (measured − predicted)."
    ]
    with_interval = [c for c in counted if c.inside is not None]
    if with_interval:
        inside = sum(c.inside for c in with_interval)
        said.append(
            f"The measured loss lies inside the stated {with_interval[0].level:.0%} interval in {inside} of"
            f" {count(len(with_interval), 'run')}."
        )
    if len(counted) < len(known):
        late = count(len(known) - len(counted), "run")
        said.append(f"{late} had been done when the prediction was made; listed, not counted.")
    return said
