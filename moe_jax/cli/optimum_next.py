"""`moe-jax optimum --next`: which of the candidate runs would narrow the optimum's intervals most per FLOP."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moe_jax import text
from moe_jax.cli import input_tables, tables
from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Cells:
    """Candidate runs."""

    names: tuple[str, ...]
    columns: dict[str, np.ndarray]  # the columns of the table or the grid
    axes: dict[str, np.ndarray]  # symbol of the law -> (cells,)
    flops: np.ndarray  # of each run


def read(source: str, planner) -> Cells:
    """The cells of a CSV or of a config's grid. Raises UserError for a table without the law's columns."""
    names, columns = _of_csv(source) if source.endswith((".csv", ".csv.gz")) else _of_config(source)
    axes = {}
    for symbol, column in planner.meant.items():
        own = planner.law.data.columns.get(symbol, column)
        key = next((k for k in (symbol, own, column) if k in columns), None)
        if key is None:
            raise UserError(f"--next {source}: has no {symbol} (column {column}), and {planner.law.name} needs it")
        axes[symbol] = np.asarray(columns[key], float)
        if not (np.isfinite(axes[symbol]) & (axes[symbol] >= 0)).all():
            raise UserError(f"--next {source}: {key} is not a number of at least 0 in every cell")
    return Cells(names, columns, axes, _flops(columns, axes, planner))


def _of_csv(source: str) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    table = input_tables.read(source, "--next")
    names = table["name"].astype(str) if "name" in table.columns else [f"row {i + 1}" for i in range(len(table))]
    return tuple(names), {c: table[c].to_numpy() for c in table.columns}


def _of_config(source: str) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    from moe_jax.config import config_file
    from moe_jax.sweep import results
    from moe_jax.sweep.planned_grid import plan_grid

    file = config_file.load([f"--config={source}"])
    runs = plan_grid(file, store_required=file.config.model.vocab_size is None).runs
    known = [{**dataclasses.asdict(run.counts), **results.planned_columns(run)} for run in runs]
    return tuple(run.name for run in runs), {c: np.array([k[c] for k in known]) for c in known[0]}


def _flops(columns: dict[str, np.ndarray], axes: dict[str, np.ndarray], planner) -> np.ndarray:
    """Of each cell: the planner's formula where the table has it, else of the shape with the cell's N."""
    if planner.cost in columns:
        return np.asarray(columns[planner.cost], float)
    experts = planner.experts

    def rate(column: str, symbol: str, default: float) -> np.ndarray:
        values = columns.get(column, axes.get(symbol, default))
        return np.broadcast_to(np.asarray(values, float), axes["N"].shape)

    K = rate("active_rate", "K", experts.K[0])
    E = K / (1 - axes["S"]) if "S" in axes else rate("expansion_rate", "E", experts.E[0])
    shapes = planner.shape.of_size(planner.meant["N"], axes["N"], E, K, rate("granularity", "G", experts.G[0]))
    return planner.shape.flops_per_token(planner.cost, shapes) * axes["D"]


def show(cells: Cells, found: Sequence, planner, flops: Sequence[float], picks: int) -> None:
    """Prints the intervals at the budgets `flops`, and the candidates, the picks first."""
    per_flop = np.array([-np.log(run.alone) / run.flops for run in found])
    rows = [
        (
            str(i + 1) if run.together is not None else "",
            text.one_line(cells.names[run.index]),
            *(text.short(v[run.index]) for v in cells.axes.values()),
            f"{run.flops:.3g}",
            f"{run.loss:.4f}",
            text.percent(1 - run.alone),
            f"{per_flop[i] / max(per_flop.max(), 1e-300):.2f}",
            "" if run.together is None else text.percent(1 - run.together),
        )
        for i, run in enumerate(found)
    ]
    heads = (
        ">pick",
        "run",
        *(f">{s}" for s in cells.axes),
        ">FLOPs",
        ">loss",
        ">narrows alone",
        ">per FLOP",
        ">with picks above",
    )
    N = planner.meant["N"]
    print(
        f"next runs: how much narrower one is expected to make the {planner.law.level:.0%} interval of the optimal {N},"
    )
    for C in flops:
        plan = planner.best(C)
        low, high = plan.intervals[N]
        print(f"now {text.short(plan.values[N])} ({text.short(low)}–{text.short(high)}) at {C:.3g} FLOPs")
    tables.show(tables.Table(heads, rows[: max(picks, 20)]))
    if len(rows) > max(picks, 20):
        print(f"- {len(rows) - max(picks, 20)} more candidates are in the file")


def rows_of(cells: Cells, found: Sequence) -> list[dict[str, object]]:
    """Rows of the CSV, in the same order."""
    return [
        {
            "pick": i + 1 if run.together is not None else "",
            "name": cells.names[run.index],
            **{s: v[run.index] for s, v in cells.axes.items()},
            "flops": run.flops,
            "predicted_loss": run.loss,
            "interval_left_alone": run.alone,
            "interval_left_together": "" if run.together is None else run.together,
        }
        for i, run in enumerate(found)
    ]
