"""What jobs cost, by their counts and, where W/plan.json was made for them and for their chips, by its chip-hours."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from moe_jax import files, placements
from moe_jax.errors import UserError
from moe_jax.jobs import Job
from moe_jax.launchers.slices import Slices
from moe_jax.manifest import PlannedRun
from moe_jax.step_shapes import StepShape
from moe_jax.tables import count, number, short
from moe_jax.workdir import Workdir

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Forecasts:
    """What plan.json says of runs as they would be trained now."""

    rows: dict[str, Row]  # run -> its row, where that is of its config, mesh and chips
    topology: str | None  # of the rows
    missing: str | None  # why the first run without a row has none


NOTHING = Forecasts({}, None, None)


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of jobs from their beginning to their end; None where the plan does not say it for all of them."""

    jobs: int
    tokens: int
    train_flops: float
    chip_hours: float | None
    price: float | None

    def __str__(self) -> str:
        return f"{count(self.jobs, 'job')}: {short(self.tokens)} tokens, {self.train_flops:.3g} FLOPs"


def forecasts(workdir: Workdir, runs: Sequence[PlannedRun], slices: Slices | None) -> Forecasts:
    """Those of the runs on these slices (None: the launcher's name for them says nothing). Raises DamagedFile."""
    path = workdir.path / "plan.json"
    try:
        planned = {row["name"]: row for row in files.read_json(path)["runs"]}
    except FileNotFoundError:
        planned = {}
    except (KeyError, TypeError) as e:
        raise files.DamagedFile(f"{path}: is no plan ({type(e).__name__}: {e}); make it again with moe-jax plan") from e
    rows, missing = {}, None
    for run in runs:
        row = planned.get(run.name, {})
        fault = _fault(row, run, slices)
        if fault is None:
            rows[run.name] = row
        else:
            missing = missing or fault
    topologies = sorted({_topology(row) for row in rows.values()})
    return Forecasts(rows, ", ".join(topologies) or None, missing if planned else "there is no plan.json")


def of(jobs: Sequence[Job], known: Forecasts = NOTHING) -> Cost:
    """The cost of jobs. A trunk's step costs what its branches' steps do."""

    def total(column: str) -> float | None:
        shares = [_share(job, known.rows, column) for job in jobs]
        return None if None in shares else sum(shares)

    return Cost(
        len(jobs), sum(j.tokens for j in jobs), sum(j.train_flops for j in jobs), total("chip_hours"), total("price")
    )


def words(cost: Cost, known: Forecasts) -> str:
    """The cost, with what it is in chip-hours and money, or why that is unknown."""
    if cost.chip_hours is None:
        why = known.missing or "by plan.json some runs do not fit"
        return f"{cost}, chip-hours unknown ({why}; moe-jax plan --topology with this --workdir writes them)"
    said = f"{cost}, {cost.chip_hours:,.4g} chip-hours on {known.topology} by plan.json"
    return said if cost.price is None else f"{said}, price {cost.price:,.2f}"


def unfit(jobs: Sequence[Job], known: Forecasts) -> list[str]:
    """Runs of which the plan says that they do not fit on their chips."""
    return [run.name for job in jobs for run in job.runs if known.rows.get(run.name, {}).get("fits") is False]


def _fault(row: Row, run: PlannedRun, slices: Slices | None) -> str | None:
    """Why a row does not say what this run costs there; None where it does."""
    if not row:
        return f"plan.json has no {run.name}"
    if not isinstance(row.get("topology"), str) or type(row.get("devices")) is not int:
        return "plan.json was made without --topology"
    if slices is not None:
        here = (slices.chip, slices.chips * slices.slices, slices.slices)
        if (row["topology"].partition(":")[0], row.get("chips"), row.get("slices")) != here:
            many = f"{slices.slices} of " if slices.slices > 1 else ""
            return f"plan.json is for {_topology(row)}, and a job has {many}{slices.chips} {slices.chip} chips"
    here = (run.config.steps, run.counts["train_flops"], _placed(row, run))
    if (row.get("steps"), row.get("train_flops"), row.get("step_shape")) != here:
        return f"plan.json has {run.name} with another config, mesh or microbatches"
    for column in ("chip_hours", "price"):
        if row.get(column) is not None and (number(row[column]) is None or row[column] < 0):
            return f"plan.json has {row[column]!r:.20} as {column} of {run.name}"
    return None


def _placed(row: Row, run: PlannedRun) -> str | None:
    """The run's step on the mesh that the row has; None where its config asks for another mesh."""
    try:
        mesh = placements.configured(run.config, row["devices"]).mesh
    except UserError:
        mesh = None  # it cannot run there
    if row.get("mesh") != (None if mesh is None else dataclasses.asdict(mesh)):
        return None
    return StepShape(run.config, run.counts["vocabulary_size"]).id


def _topology(row: Row) -> str:
    slices = row.get("slices")
    return f"{slices} × {row['topology']}" if type(slices) is int and slices > 1 else row["topology"]


def _share(job: Job, rows: Mapping[str, Row], column: str) -> float | None:
    row = next((rows[run.name] for run in job.runs if run.name in rows), {})
    whole = row.get(column)
    return None if whole is None else whole * job.train_flops / row["train_flops"]
