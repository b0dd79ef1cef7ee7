"""prediction.csv: the loss that a law predicts for each run and when it was stated, compared with the measured loss.

A prediction stated before its run was finished is never replaced by one stated afterwards."""

import csv
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence

from etils import epath

from moe_jax import files
from moe_jax.files import DamagedFile
from moe_jax.text import count

_NUMBERS = ("predicted_loss", "low", "high", "level")
_TEXTS = ("name", "law", "loss", "stated", "state")


@dataclasses.dataclass(frozen=True)
class CheckedPrediction:
    """A predicted and a measured loss, nats per token. low and high are NaN where the law has no bootstrap samples."""

    name: str
    law: str
    stated: str  # time, UTC
    before: bool  # stated before the run was finished
    predicted: float
    low: float  # of a single run: the law's uncertainty, its own error beyond its data, and the scatter of runs
    high: float
    level: float
    measured: float | None  # None: not finished yet
    outside: str  # columns in which the run lies outside the range that the law was fitted on

    @property
    def error(self) -> float | None:
        """Measured − predicted."""
        return None if self.measured is None else self.measured - self.predicted

    @property
    def inside(self) -> bool | None:
        """Whether the interval contains the measured loss; None where either is missing."""
        return None if self.measured is None or math.isnan(self.low) else self.low <= self.measured <= self.high


def write(path: epath.Path, rows: Sequence[Mapping]) -> int:
    """Writes the rows to `path`, and gives how many of its older predictions were kept instead.

    A prediction in `path` is kept where its run was not finished then and is now. Raises UserError where `path` cannot
    be read, for it may hold predictions that cannot be stated again."""
    earlier = {row["name"]: row for row in read(path)} if path.exists() else {}
    kept = {
        row["name"]: earlier[row["name"]]
        for row in rows
        if row["state"] == "done" and earlier.get(row["name"], {}).get("state", "done") != "done"
    }
    rows = [dict(kept.get(row["name"], row)) for row in rows]
    columns = dict.fromkeys(key for row in rows for key in row)  # laws differ in their axes
    files.write_atomic(path, files.to_csv([{key: row.get(key, "") for key in columns} for row in rows]))
    return len(kept)


def read(path: epath.Path) -> list[dict[str, object]]:
    """The rows of a prediction.csv, with numbers parsed. Raises DamagedFile."""
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
        raise DamagedFile(f"{path}: is damaged ({e}); move it away and predict again") from e


def check(rows: Sequence[Mapping], results: Sequence[Mapping]) -> list[CheckedPrediction]:
    """Compares predictions with the rows of results.csv of finished runs."""
    done = {row["name"]: row for row in results if row["status"] == "done"}
    checked = []
    for row in rows:
        result = done.get(row["name"])
        loss = row["loss"] if result and row["loss"] in result else "eval_loss"
        checked.append(
            CheckedPrediction(
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


def sentences(checked: Sequence[CheckedPrediction]) -> list[str]:
    """How good the predictions were. Only those stated before their run was finished count."""
    known = [c for c in checked if c.measured is not None]
    counted = [c for c in known if c.before]
    if not counted:
        why = "none of them is finished yet" if not known else "those finished were finished before the prediction"
        return [f"{count(len(checked), 'run')} predicted; {why}, so the predictions cannot be judged."]
    rmse = math.sqrt(sum(c.error**2 for c in counted) / len(counted))
    mean = sum(c.error for c in counted) / len(counted)
    said = [
        f"{count(len(counted), 'run')} of {len(checked)} predicted before being finished, and measured since: RMSE"
        f" {rmse:.4f} nats, mean error {mean:+.4f} (measured − predicted)."
    ]
    with_interval = [c for c in counted if c.inside is not None]
    if with_interval:
        inside = sum(c.inside for c in with_interval)
        said.append(
            f"The measured loss lies inside the predicted {with_interval[0].level:.0%} interval in {inside} of"
            f" {count(len(with_interval), 'run')}."
        )
    if len(counted) < len(known):
        late = count(len(known) - len(counted), "run")
        said.append(f"{late} had been finished when the prediction was stated: listed, not counted.")
    return said
