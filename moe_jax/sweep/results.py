"""results.csv: a row for every run, of what was planned (the manifest), on which data (run.json), its result, and its
evaluations.

Laws choose among the columns: COLUMNS, then those of the evaluations that the runs have, sorted. A value that a run
does not have is empty in the file and None in a row.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Sequence
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.data.unique_tokens import unique_tokens
from moe_jax.files import DamagedFile
from moe_jax.sweep.evaluation_record import EvaluationRecord
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.result import Result, Status
from moe_jax.sweep.rundir import RunDir

COLUMNS = (
    "name", "status", "n_total_nonemb", "n_active_nonemb", "n_total", "n_active", "tokens", "unique_tokens",
    "expansion_rate", "granularity", "active_rate", "sparsity", "n_experts", "top_k", "shared_share", "router",
    "dispatch", "schedule", "optimizer", "d_model", "n_layers", "batch_tokens", "sequence_length", "vocab_size",
    "compute_dtype", "store_sha256", "flops_krajewski2024", "flops_abnar2025", "train_flops", "eval_loss",
    "eval_loss_capacity", "bits_per_byte", "train_loss", "dropped_fraction", "eval_dropped_fraction", "seed",
    "learning_rate", "trunk", "own_tokens", "attempts", "config_hash", "git_commit", "device", "n_devices",
    "wall_seconds", "tokens_per_second", "mfu",
)  # fmt: skip

# A fit over runs that differ in one of these compares unlike things, so `collect` asks before it mixes them.
UNMIXED = ("store_sha256", "dispatch", "schedule", "optimizer", "batch_tokens")

COLUMN_NAME = re.compile(r"[a-z0-9_]+")  # of an evaluation

# The columns that are the result's fields of the same name.
_FROM_RESULT = (
    "name", "status", "tokens", "eval_loss", "eval_loss_capacity", "bits_per_byte", "train_loss", "dropped_fraction",
    "eval_dropped_fraction", "trunk", "own_tokens", "attempts", "config_hash", "git_commit", "device", "n_devices",
    "wall_seconds", "tokens_per_second", "mfu",
)  # fmt: skip
_TEXTS = {
    "name", "status", "router", "dispatch", "schedule", "optimizer", "compute_dtype", "store_sha256", "trunk",
    "config_hash", "git_commit", "device",
}  # fmt: skip

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a run with a result has left that its row needs."""

    result: Result
    store_sha256: str  # of the data that it learned from
    train_tokens: int | None  # of that store; None in a run.json that does not say
    evaluations: Sequence[EvaluationRecord] = ()

    @property
    def measured(self) -> dict[str, float]:
        """The columns of the evaluations of its last checkpoint; those of an earlier one are of another model."""
        found = {}
        for evaluation in self.evaluations:
            if evaluation.step == self.result.steps:
                found |= evaluation.columns()
        return found


def row_of_run(run: PlannedRun, folder: RunDir) -> Row | None:
    """The row of a run with a result; None if it has none. Raises DamagedFile.

    The result may be of another config than the manifest's (see `matches`); the caller refuses that."""
    finished = finished_run(run, folder)
    return None if finished is None else row_of(run, finished)


def finished_run(run: PlannedRun, folder: RunDir) -> Finished | None:
    """A run with a result, from result.json and run.json; None if it has none. Raises DamagedFile."""
    result = folder.result()
    if result is None:
        return None
    if not is_as_planned(result, run):
        for field in ("steps", "tokens"):
            found, planned = getattr(result, field), getattr(run.counts, field)
            if found != planned:
                raise DamagedFile(f"{folder.result_path}: is damaged ({field} is {found}, planned were {planned})")
    started = folder.run_record()
    if started is None:
        raise DamagedFile(f"{folder.run_record_path}: is missing, so the run's token store is not known")
    evaluations = folder.evaluations()
    for evaluation in evaluations:
        if taken := sorted(evaluation.columns().keys() & set(COLUMNS)):
            raise DamagedFile(
                f"{folder.path}: its evaluation {evaluation.kind}-{evaluation.of} would be the column {taken[0]}, "
                "which is another; remove its file, and choose another name"
            )
    return Finished(result, started.store.sha256, started.store.train_tokens, evaluations)


def is_as_planned(result: Result, run: PlannedRun) -> bool:
    """Whether a result of the run's config has the run's length; one that diverged has any."""
    if result.status != Status.DONE or result.config_hash != run.config_hash:
        return True
    return (result.steps, result.tokens) == (run.counts.steps, run.counts.tokens)


def row_of(run: PlannedRun, finished: Finished) -> Row:
    """The row of a finished run."""
    result = finished.result
    values = planned_columns(run, finished.train_tokens, result.tokens)
    values |= {column: getattr(result, column) for column in _FROM_RESULT}
    values["store_sha256"] = finished.store_sha256
    # FLOPs are linear in tokens; a diverged run did not train on all planned tokens.
    done = result.tokens / run.counts.tokens
    values |= {c: getattr(run.counts, c) * done for c in ("flops_krajewski2024", "flops_abnar2025", "train_flops")}
    return {column: values[column] for column in COLUMNS} | finished.measured


def matches(row: Row, run: PlannedRun) -> bool:
    """Whether the row's result is of the manifest's config."""
    return row["config_hash"] == run.config_hash


def planned_columns(run: PlannedRun, train_tokens: int | None, tokens: int | None = None) -> Row:
    """The columns that are known before training.

    train_tokens: of the store; None where it is not known, and with it unique_tokens. tokens: what the run trains on
    (default: as planned). A dense model has one expert for every token (E = K = 1), as the laws over E and S take it;
    it has no granularity, router or dispatch."""
    config, moe = run.config, run.config.moe
    counted = ("n_total_nonemb", "n_active_nonemb", "n_total", "n_active", "vocab_size")
    planned = {column: getattr(run.counts, column) for column in counted}
    fields = ("expansion_rate", "granularity", "active_rate", "sparsity", "n_experts", "top_k", "router", "dispatch")
    dense = dict(zip(fields, (1, None, 1, 0, 1, 1, None, None), strict=True))
    planned |= dense if moe is None else {field: getattr(moe, field) for field in fields}
    tokens = run.counts.tokens if tokens is None else tokens
    return planned | {
        "unique_tokens": None if train_tokens is None else unique_tokens(tokens, train_tokens, config.data),
        "shared_share": 0.0 if moe is None else moe.shared_experts / (moe.top_k + moe.shared_experts),
        "schedule": config.optim.schedule,
        "optimizer": config.optim.name,
        "d_model": config.model.d_model,
        "n_layers": config.model.n_layers,
        "batch_tokens": config.batch_tokens,
        "sequence_length": config.data.sequence_length,
        "compute_dtype": config.model.compute_dtype,
        "seed": config.seed,
        "learning_rate": config.optim.learning_rate,
    }


def mixed(rows: Sequence[Row]) -> dict[str, dict[Any, int]]:
    """The columns of UNMIXED that have several values, and how many rows have each value; None is no value."""
    found = {}
    for column in UNMIXED:
        values: dict[Any, int] = {}
        for row in rows:
            if row[column] is not None:
                values[row[column]] = values.get(row[column], 0) + 1
        if len(values) > 1:
            found[column] = values
    return found


def evaluated_columns(rows: Sequence[Row]) -> list[str]:
    """The columns of the rows' evaluations, sorted."""
    return sorted({column for row in rows for column in row} - set(COLUMNS))


def to_csv(rows: Sequence[Row]) -> bytes:
    """The bytes of results.csv. Floats read back as the same bits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, (*COLUMNS, *evaluated_columns(rows)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def read_csv(path: epath.Path) -> list[Row]:
    """The rows of a results.csv. Raises FileNotFoundError, or DamagedFile if `to_csv` did not write it."""
    try:
        reader = csv.reader(io.StringIO(files.read_file(path).decode(), newline=""), strict=True)
        columns = tuple(next(reader, ()))
        more = columns[len(COLUMNS) :]
        named = all(map(COLUMN_NAME.fullmatch, more)) and list(more) == sorted({*more} - {*COLUMNS})
        if columns[: len(COLUMNS)] != COLUMNS or not named:
            raise ValueError("other columns than results.csv has")
        return [_row(columns, fields) for fields in reader]
    except (ValueError, TypeError, csv.Error) as e:
        raise DamagedFile(f"{path}: is damaged ({e})") from e


def _row(columns: Sequence[str], fields: Sequence[str]) -> Row:
    """A row, without the evaluations that its run does not have."""
    values = {column: _value(column, text) for column, text in zip(columns, fields, strict=True)}
    return {column: value for column, value in values.items() if value is not None or column in COLUMNS}


def _value(column: str, text: str) -> Any:
    if text == "":
        return None
    if column in _TEXTS:
        return text
    return int(text) if text.lstrip("-").isdecimal() else float(text)
