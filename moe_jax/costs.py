"""What jobs cost, by their counts and, where W/plan.json has chip-hours for them, by those."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from moe_jax import files
from moe_jax.jobs import Job
from moe_jax.tables import count, number, short
from moe_jax.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Cost:
    """Of jobs from their beginning to their end; None where the plan does not say it for all of them."""

    jobs: int
    tokens: int
    train_flops: float
    chip_hours: float | None
    price: float | None

    def __str__(self) -> str:
        words = [f"{short(self.tokens)} tokens", f"{self.train_flops:.3g} FLOPs"]
        if self.chip_hours is None:
            words.append("chip-hours unknown (moe-jax plan --topology with this --workdir writes them)")
        else:
            words.append(f"{self.chip_hours:,.4g} chip-hours by plan.json")
        if self.price is not None:
            words.append(f"price {self.price:,.2f}")
        return f"{count(self.jobs, 'job')}: {', '.join(words)}"


def planned_rows(workdir: Workdir) -> dict[str, Mapping[str, Any]]:
    """run -> its row of plan.json; nothing where there is none. Raises DamagedFile."""
    path = workdir.path / "plan.json"
    try:
        rows = files.read_json(path)["runs"]
        return {row["name"]: row for row in rows}
    except FileNotFoundError:
        return {}
    except (KeyError, TypeError) as e:
        raise files.DamagedFile(f"{path}: is no plan ({type(e).__name__}: {e}); make it again with moe-jax plan") from e


def of(jobs: Sequence[Job], rows: Mapping[str, Mapping[str, Any]]) -> Cost:
    """The cost of jobs. A trunk's step costs what its branches' steps do."""

    def total(column: str) -> float | None:
        shares = [_share(job, rows, column) for job in jobs]
        return None if None in shares else sum(shares)

    return Cost(
        len(jobs), sum(j.tokens for j in jobs), sum(j.train_flops for j in jobs), total("chip_hours"), total("price")
    )


def unfit(jobs: Sequence[Job], rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Runs of which the plan says that they do not fit on the chips it was made for."""
    return [run.name for job in jobs for run in job.runs if rows.get(run.name, {}).get("fits") is False]


def _share(job: Job, rows: Mapping[str, Mapping[str, Any]], column: str) -> float | None:
    row = next((rows[run.name] for run in job.runs if run.name in rows), {})
    whole, flops = number(row.get(column)), number(row.get("train_flops"))
    return None if whole is None or not flops else whole * job.train_flops / flops
