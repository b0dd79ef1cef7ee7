"""What jobs cost: tokens and FLOPs from their counts; chip-hours and price from W/plan.json, where it is for the same
runs and chips."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from moe_jax import files
from moe_jax.config.identity import StepShape
from moe_jax.errors import UserError
from moe_jax.plan import placement
from moe_jax.plan.rows import PLAN_FILE
from moe_jax.sweep.jobs import Job
from moe_jax.sweep.launchers.slices import Slices
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.workdir import Workdir
from moe_jax.text import count, number, short

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class MatchingPlan:
    """The rows of plan.json that hold for runs as they would be trained now."""

    rows: dict[str, Row]  # run -> its row, where config, mesh and chips are the same
    topology: str | None  # of the rows
    missing: str | None  # why the first run without a row has none


NO_PLAN = MatchingPlan({}, None, None)


@dataclasses.dataclass(frozen=True)
class Cost:
    """The cost of jobs from their beginning to their end; None where the plan does not cover all of them."""

    jobs: int
    tokens: int
    train_flops: float
    chip_hours: float | None
    price: float | None

    def __str__(self) -> str:
        return f"{count(self.jobs, 'job')}: {short(self.tokens)} tokens, {self.train_flops:.3g} FLOPs"


def matching_plan(workdir: Workdir, runs: Sequence[PlannedRun], slices: Slices | None) -> MatchingPlan:
    """The rows of plan.json for these runs on these slices (None: the chips are not known). Raises DamagedFile."""
    path = workdir.path / PLAN_FILE
    try:
        planned = {row["name"]: row for row in files.read_sealed(path)["runs"]}
    except FileNotFoundError:
        planned = {}
    except (KeyError, TypeError) as e:
        raise files.DamagedFile(f"{path}: is no plan ({type(e).__name__}: {e}); make it again with moe-jax plan") from e
    rows, missing = {}, None
    for run in runs:
        row = planned.get(run.name, {})
        fault = _mismatch(row, run, slices)
        if fault is None:
            rows[run.name] = row
        else:
            missing = missing or fault
    topologies = sorted({_topology(row) for row in rows.values()})
    return MatchingPlan(rows, ", ".join(topologies) or None, missing if planned else "there is no plan.json")


def cost_of_jobs(jobs: Sequence[Job], plan: MatchingPlan = NO_PLAN) -> Cost:
    """The cost of jobs. A step of a trunk costs as much as a step of its branches."""

    def total(column: str) -> float | None:
        shares = [_job_share(job, plan.rows, column) for job in jobs]
        return None if None in shares else sum(shares)

    return Cost(
        len(jobs), sum(j.tokens for j in jobs), sum(j.train_flops for j in jobs), total("chip_hours"), total("price")
    )


def cost_sentence(cost: Cost, plan: MatchingPlan) -> str:
    """The cost with its chip-hours and price, or with the reason why they are unknown."""
    if cost.chip_hours is None:
        why = plan.missing or "by plan.json some runs do not fit"
        return f"{cost}, chip-hours unknown ({why}; moe-jax plan --topology with this --workdir writes them)"
    said = f"{cost}, {cost.chip_hours:,.4g} chip-hours on {plan.topology} by plan.json"
    return said if cost.price is None else f"{said}, price {cost.price:,.2f}"


def runs_that_do_not_fit(jobs: Sequence[Job], plan: MatchingPlan) -> list[str]:
    """Names of the runs that do not fit on their chips, by the plan."""
    return [run.name for job in jobs for run in job.runs if plan.rows.get(run.name, {}).get("fits") is False]


def _mismatch(row: Row, run: PlannedRun, slices: Slices | None) -> str | None:
    """Why a row does not hold for this run on these slices; None where it does."""
    if not row:
        return f"plan.json has no {run.name}"
    if not isinstance(row.get("topology"), str) or type(row.get("devices")) is not int:
        return "plan.json was made without --topology"
    if slices is not None:
        wanted = (slices.chip, slices.chips * slices.slices, slices.slices)
        if (row["topology"].partition(":")[0], row.get("chips"), row.get("slices")) != wanted:
            many = f"{slices.slices} × " if slices.slices > 1 else ""
            return f"plan.json is for {_topology(row)}, and a job has {many}{slices.chips} {slices.chip} chips"
    wanted = (run.config.steps, run.counts.train_flops, _shape_id_on(row, run))
    if (row.get("steps"), row.get("train_flops"), row.get("step_shape")) != wanted:
        return f"plan.json has {run.name} with another config, mesh or microbatches"
    for column in ("chip_hours", "price"):
        if row.get(column) is not None and (number(row[column]) is None or row[column] < 0):
            return f"plan.json has {row[column]!r:.20} as {column} of {run.name}"
    return None


def _shape_id_on(row: Row, run: PlannedRun) -> str | None:
    """Identifies the run's step on the row's mesh; None where the run's config asks for another mesh."""
    try:
        mesh = placement.configured(run.config, row["devices"]).mesh
    except UserError:
        mesh = None  # it cannot run there
    if row.get("mesh") != (None if mesh is None else dataclasses.asdict(mesh)):
        return None
    return StepShape(run.config, run.counts.vocab_size).id


def _topology(row: Row) -> str:
    slices = row.get("slices")
    return f"{slices} × {row['topology']}" if type(slices) is int and slices > 1 else row["topology"]


def _job_share(job: Job, rows: Mapping[str, Row], column: str) -> float | None:
    row = next((rows[run.name] for run in job.runs if run.name in rows), {})
    whole = row.get(column)
    return None if whole is None else whole * job.train_flops / row["train_flops"]
