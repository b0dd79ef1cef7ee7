"""Rows and totals of a plan, plan.json's: what is known of each run before it is trained, and what its compiled step
adds."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from moe_jax import jobs, results
from moe_jax.manifest import PlannedRun
from moe_jax.outlook import Outlook

Row = dict[str, Any]

_FLOPS = ("flops_krajewski2024", "flops_abnar2025", "flops_6nd", "train_flops")


def rows(grid: Outlook) -> list[Row]:
    """The columns of results.csv that are known before training, and what else is; tokens and FLOPs of whole runs."""
    own = {job.name: job.tokens for job in jobs.jobs(grid.runs, packed=False)}
    trunks = {run.name: trunk.name for trunk in jobs.trunks(grid.runs) for run in trunk.branches}
    return [_row(run, grid, trunks.get(run.name), own[run.name]) for run in grid.runs]


def _row(run: PlannedRun, grid: Outlook, trunk: str | None, own_tokens: int) -> Row:
    available, store = grid.available_tokens(run.config), grid.store_sha256
    return {
        "name": run.name,
        **results.planned_columns(run),
        "tokens": run.counts["tokens"],
        "steps": run.counts["steps"],
        **{column: run.counts[column] for column in _FLOPS},
        "trunk": trunk,
        "own_tokens": own_tokens,
        "store_sha256": store,
        "config_hash": None if store is None else run.config_hash,
        "epochs": None if available is None else run.counts["tokens"] / available,  # 1: each token of the store once
        "refusal": grid.refusal(run),  # why sweep would not begin it on this store
    }


@dataclasses.dataclass(frozen=True)
class Rates:
    """What turns the seconds of a roofline into hours and money."""

    efficiency: float = 1.0  # the share of the roofline's rate that is reached; 1: the bound itself
    price_per_chip_hour: float | None = None


def with_step(row: Row, step: Row, rates: Rates) -> Row:
    """The row with the columns of its compiled step (forecast.columns), and what follows for the whole run."""
    merged = row | step
    if step["step_seconds"] is None:
        return merged | dict.fromkeys(("hours", "chip_hours", "price"))
    hours = row["steps"] * step["step_seconds"] / rates.efficiency / 3600
    chip_hours = hours * step["chips"]
    price = None if rates.price_per_chip_hour is None else chip_hours * rates.price_per_chip_hour
    return merged | {"hours": hours, "chip_hours": chip_hours, "price": price}


def totals(rows: Sequence[Row], grid: Outlook) -> dict[str, Any]:
    """Sums over the runs; chip-hours and price are of the runs that fit, None where nothing was compiled.

    `own_…`: of what is trained where runs share trunks; chip-hours and price None unless every run fits."""
    summed: dict[str, Any] = {"runs": len(rows)}
    summed |= {column: sum(r[column] for r in rows) for column in ("tokens", "steps", *_FLOPS)}
    trained = jobs.saving(grid.runs)
    summed |= {"trunks": trained.trunks, "own_tokens": trained.tokens, "own_train_flops": trained.train_flops}
    summed["refused"] = sum(r["refusal"] is not None for r in rows)
    if "fits" in rows[0]:
        summed["fit"] = sum(r["fits"] for r in rows)
        for column in ("chip_hours", "price"):
            known = {r["name"]: r[column] for r in rows if r["fits"] and r[column] is not None}
            summed[column] = sum(known.values()) if known else None
            summed[f"own_{column}"] = _shared(known, grid) if len(known) == len(rows) else None
    return summed


def _shared(whole: dict[str, float], grid: Outlook) -> float:
    """Costs of whole runs -> the cost of what is trained, where runs share trunks."""
    trained = 0.0
    for job in jobs.jobs(grid.runs):
        run = (job.runs or job.trunk.branches)[0]  # a trunk's step costs what its branches' steps do
        trained += whole[run.name] * job.train_flops / run.counts["train_flops"]
    return trained
