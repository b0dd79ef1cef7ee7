"""A row of results.csv: what was planned (the manifest), on which data (run.json), what came out (result.json).

Design §3 names the columns; laws choose among them. A value that a run has not is empty in the file, None in a row.
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

from etils import epath

from moe_jax import resultfile
from moe_jax.files import DamagedFile
from moe_jax.manifest import PlannedRun
from moe_jax.rundir import RunDir

COLUMNS = (
    "name", "status", "n_total_nonemb", "n_active_nonemb", "n_total", "n_active", "tokens", "expansion_rate",
    "granularity", "active_rate", "sparsity", "n_experts", "top_k", "router", "dispatch", "schedule", "d_model",
    "n_blocks", "batch_tokens", "sequence_length", "vocabulary_size", "compute_dtype", "store_sha256",
    "flops_krajewski2024", "flops_abnar2025", "train_flops", "eval_loss", "bits_per_byte", "train_loss",
    "dropped_fraction", "seed", "learning_rate", "trunk", "own_tokens", "attempts", "config_hash", "git_commit",
    "device", "wall_seconds", "mfu",
)  # fmt: skip

# A fit over runs that differ in one of these compares unlike things, so `collect` asks before it mixes them.
UNMIXED = ("store_sha256", "dispatch", "schedule", "batch_tokens")

_TEXTS = {"router", "dispatch", "schedule", "compute_dtype", "store_sha256"} | resultfile.TEXTS

Row = dict[str, Any]


def row(run: PlannedRun, folder: RunDir) -> Row | None:
    """The row of a run with a result, None of one without. Raises DamagedFile.

    The result may be of another config than the manifest's (see `matches`): that is for the caller to refuse."""
    result = folder.result()
    if result is None:
        return None
    if result["status"] == "done" and result["config_hash"] == run.config_hash:
        for field in ("steps", "tokens"):
            if result[field] != run.counts[field]:
                raise DamagedFile(
                    f"{folder.result_path}: is damaged ({field} is {result[field]!r}, planned were {run.counts[field]})"
                )
    made_on = folder.run()
    store = made_on.get("store") if made_on else None
    if not isinstance(store, dict) or not isinstance(store.get("sha256"), str):
        raise DamagedFile(
            f"{folder.path / 'run.json'}: is missing or damaged, so what the run learned from is not known"
        )
    values = planned_columns(run) | {column: result.get(column) for column in resultfile.MEASURED}
    values |= {column: result[column] for column in ("name", "status", "tokens")} | {"store_sha256": store["sha256"]}
    # FLOPs are linear in tokens; a diverged run did not train on all that were planned.
    done = result["tokens"] / run.counts["tokens"]
    values |= {c: run.counts[c] * done for c in ("flops_krajewski2024", "flops_abnar2025", "train_flops")}
    return {column: values[column] for column in COLUMNS}


def matches(row: Row, run: PlannedRun) -> bool:
    """Whether the result is that of the manifest's run."""
    return row["config_hash"] == run.config_hash


def planned_columns(run: PlannedRun) -> Row:
    """The columns that are known before training. A dense twin is one expert that every token meets (E = K = 1), as the
    laws over E and S take it; it has no granularity, router or dispatch."""
    config, moe = run.config, run.config.moe
    counted = ("n_total_nonemb", "n_active_nonemb", "n_total", "n_active", "vocabulary_size")
    planned = {column: run.counts[column] for column in counted}
    fields = ("expansion_rate", "granularity", "active_rate", "sparsity", "n_experts", "top_k", "router", "dispatch")
    dense = dict(zip(fields, (1, None, 1, 0, 1, 1, None, None), strict=True))
    planned |= dense if moe is None else {field: getattr(moe, field) for field in fields}
    return planned | {
        "schedule": config.optim.schedule,
        "d_model": config.model.d_model,
        "n_blocks": config.model.n_blocks,
        "batch_tokens": config.batch_tokens,
        "sequence_length": config.data.sequence_length,
        "compute_dtype": config.model.compute_dtype,
        "seed": config.seed,
        "learning_rate": config.optim.learning_rate,
    }


def mixed(rows: Sequence[Row]) -> dict[str, dict[Any, int]]:
    """The columns of UNMIXED with several values, and how many rows have each; a dense twin has no dispatch."""
    found = {}
    for column in UNMIXED:
        values: dict[Any, int] = {}
        for r in rows:
            if r[column] is not None:
                values[r[column]] = values.get(r[column], 0) + 1
        if len(values) > 1:
            found[column] = values
    return found


def to_csv(rows: Sequence[Row]) -> bytes:
    """results.csv. Floats are written so that they read back as the same bits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def read_csv(path: epath.Path) -> list[Row]:
    """The rows of a results.csv. Raises FileNotFoundError, or DamagedFile where it is none."""
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError("other columns than results.csv has")
        return [{column: _value(column, text) for column, text in r.items()} for r in reader]
    except (ValueError, TypeError, csv.Error) as e:
        raise DamagedFile(f"{path}: is damaged ({e})") from e


def _value(column: str, text: str) -> Any:
    if text == "":
        return None
    if column in _TEXTS:
        return text
    return int(text) if text.lstrip("-").isdecimal() else float(text)
