"""plan.json: a row a run with what is known before training and what its compiled step adds, their totals, the file."""

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.errors import UserError
from moe_jax.sweep import jobs, results
from moe_jax.sweep.jobs import Job
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.planned_grid import PlannedGrid

PLAN_FILE = "plan.json"

Row = dict[str, Any]

_FLOPS = ("flops_krajewski2024", "flops_abnar2025", "flops_6nd", "train_flops")


@dataclasses.dataclass(frozen=True)
class Rates:
    """Turns the seconds of a roofline into hours and money."""

    efficiency: float = 1.0  # the share of the roofline's rate that is reached; 1: the bound itself
    price_per_chip_hour: float | None = None


def plan_rows(grid: PlannedGrid) -> list[Row]:
    """One row a run: the columns of results.csv that are known before training, and more. Tokens and FLOPs are those
    of whole runs, shared trunks included."""
    alone = {job.name: job for job in jobs.jobs_of(grid.runs, packed=False)}
    return [_plan_row(run, grid, alone[run.name]) for run in grid.runs]


def _plan_row(run: PlannedRun, grid: PlannedGrid, job: Job) -> Row:
    available, store = grid.available_tokens(run.config), grid.store_sha256
    return {
        "name": run.name,
        **results.planned_columns(run, grid.identity.train_tokens),
        "tokens": run.counts.tokens,
        "steps": run.counts.steps,
        **{column: getattr(run.counts, column) for column in _FLOPS},
        "trunk": job.waits_for,
        "own_tokens": job.tokens,
        "store_sha256": store,
        "config_hash": None if store is None else run.config_hash,
        "epochs": None if available is None else run.counts.tokens / available,  # 1: each token of the store once
        "refusal": grid.refusal(run),  # why sweep would not start it on this store
    }


def with_step_columns(row: Row, step: Row, rates: Rates) -> Row:
    """The row with the columns of its compiled step (StepForecast.columns), and the whole run's hours and price."""
    merged = row | step
    if step["step_seconds"] is None:
        return merged | dict.fromkeys(("hours", "chip_hours", "price"))
    hours = row["steps"] * step["step_seconds"] / rates.efficiency / 3600
    chip_hours = hours * step["chips"]
    price = None if rates.price_per_chip_hour is None else chip_hours * rates.price_per_chip_hour
    return merged | {"hours": hours, "chip_hours": chip_hours, "price": price}


def totals(rows: Sequence[Row], grid: PlannedGrid) -> dict[str, Any]:
    """Sums over the runs. Chip-hours and price are those of the runs that fit; None where nothing was compiled.

    The `own_…` columns count shared trunks once; their chip-hours and price are None unless every run fits."""
    summed: dict[str, Any] = {"runs": len(rows)}
    summed |= {column: sum(r[column] for r in rows) for column in ("tokens", "steps", *_FLOPS)}
    trained = grid.saving
    summed |= {"trunks": trained.trunks, "own_tokens": trained.tokens, "own_train_flops": trained.train_flops}
    summed["refused"] = sum(r["refusal"] is not None for r in rows)
    if "fits" in rows[0]:
        summed["fit"] = sum(r["fits"] for r in rows)
        for column in ("chip_hours", "price"):
            known = {r["name"]: r[column] for r in rows if r["fits"] and r[column] is not None}
            summed[column] = sum(known.values()) if known else None
            summed[f"own_{column}"] = _with_shared_trunks(known, grid) if len(known) == len(rows) else None
    return summed


def _with_shared_trunks(whole: dict[str, float], grid: PlannedGrid) -> float:
    """The cost of what is trained where runs share trunks, from the costs of whole runs."""
    trained = 0.0
    for job in jobs.jobs_of(grid.runs):
        run = (job.runs or job.trunk.branches)[0]  # a trunk's step costs what its branches' steps do
        trained += whole[run.name] * job.train_flops / run.counts.train_flops
    return trained


def write_plan(path: epath.Path, plan: dict[str, Any], say: Callable[[str], None]) -> None:
    """Writes the plan. A different plan at that path is first moved aside; raises UserError where another kind of file
    stands there."""
    try:
        old = files.read_sealed(path)
    except FileNotFoundError:
        old = None
    except files.DamagedFile as e:
        raise _not_a_plan(path, "no plan that moe-jax wrote, or a damaged one") from e
    if old is not None:
        if not isinstance(old.get("runs"), list) or not isinstance(old.get("totals"), dict):
            raise _not_a_plan(path, "not a plan")
        if old == json.loads(json.dumps(plan)):
            say(f"plan: {path} (unchanged)")
            return
        numbered = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in itertools.count(1))
        aside = next(name for name in numbered if not name.exists())
        path.rename(aside)
        say(f"the old plan was moved to {aside}")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_sealed(path, plan)
    say(f"plan: {path}")


def _not_a_plan(path: epath.Path, what: str) -> UserError:
    return UserError(f"{path}: is {what}, and a plan would overwrite it; give another path with --out, or move it away")
