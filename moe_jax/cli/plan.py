"""`moe-jax plan`: what a config's grid is and costs, before anything is queued. It needs no device and no store."""

import argparse
import math
import os
from collections.abc import Sequence

from moe_jax import errors
from moe_jax.cli import command, outputs, rules
from moe_jax.config import config_file
from moe_jax.errors import UserError

DESCRIPTION = """Prints each run of a config's grid (parameters, tokens, steps, FLOPs) and the totals.

  moe-jax plan --config=configs/krajewski2024.py:table3 --config.model.vocab_size=50257
  moe-jax plan --config=configs/krajewski2025.py:11b --topology=v5p:4x4x4 --workdir=gs://bucket/k25

With --topology, the train step of every distinct shape is compiled for those chips. This machine needs none of them,
but libtpu. The plan then says whether each step fits in memory, and the least time that it takes at the chip's
published rates. Compiles are kept, so the second time is instant, and a plan that was stopped goes on. Exit code 1: at
least one run cannot be trained so."""


def main(argv: Sequence[str]) -> int:
    config_args, others = config_file.split(argv)
    flags = _parser().parse_args(others)
    _check(flags)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from moe_jax.cli import plan_table, tables
    from moe_jax.plan.rows import Rates, plan_rows
    from moe_jax.sweep.planned_grid import plan_grid

    file = rules.load(config_args, flags)
    grid = plan_grid(file, store_required=False)
    if flags.only:
        grid = grid.only(flags.only)
    rates = Rates(flags.efficiency, flags.price_per_chip_hour)
    rows = plan_rows(grid)
    missing: UserError | None = None
    if flags.topology:
        from moe_jax.plan import grid_forecast

        if missing := grid_forecast.missing_compiler():
            print("without a compiler for TPUs there is no forecast; the rest of the plan:")
        else:
            rows = grid_forecast.add_forecasts(rows, grid.runs, _target(flags), rates, jobs=flags.jobs)
    tables.show(plan_table.plan_table(rows, rates))
    print("\n".join([*plan_table.plan_sentences(rows, rates, grid), *file.remarks]))
    if flags.out or flags.workdir:
        _write(flags, rows, grid)
    if missing:
        raise missing
    impossible = [r for r in rows if r["refusal"] or not r.get("fits", True)]
    return errors.FAILED if impossible else errors.DONE


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("plan", DESCRIPTION)
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN",
        help="only the runs whose names match, for example n25m-*",
    )  # fmt: skip
    parser.add_argument("--workdir", metavar="W", help="write W/plan.json")
    parser.add_argument("--out", metavar="FILE", help="write the plan to FILE instead")
    rules.add_flags(parser)
    _add_slice_flags(parser.add_argument_group("TPU slices"))
    parser.epilog = config_file.HELP
    return parser


def _add_slice_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--topology", metavar="NAME",
        help="a slice: v5e:4x4, v5p:2x2x4, …; auto:v5p is the smallest v5p slice that fits (auto: v5e)",
    )  # fmt: skip
    group.add_argument("--slices", type=int, default=1, metavar="N", help="number of slices for each run (default 1)")
    group.add_argument(
        "--pick", action="store_true",
        help="for each shape, pick a mesh and the fewest microbatches that fit, instead of the config's; "
        "the batch stays the config's",
    )  # fmt: skip
    group.add_argument("--jobs", type=int, default=2, metavar="N", help="compiles at a time (default 2)")
    group.add_argument(
        "--efficiency", type=float, default=1.0, metavar="SHARE",
        help="share of the roofline's rate that the hours assume (default 1: a lower bound)",
    )  # fmt: skip
    group.add_argument(
        "--price_per_chip_hour", type=float, metavar="PRICE", help="your price of a chip hour (no default)"
    )


def _check(flags: argparse.Namespace) -> None:
    for name in ("slices", "jobs"):
        if getattr(flags, name) < 1:
            raise UserError(f"--{name}={getattr(flags, name)}: must be at least 1")
    if not 0 < flags.efficiency <= 1:
        raise UserError(f"--efficiency={flags.efficiency:g}: must be above 0 and at most 1")
    price = flags.price_per_chip_hour
    if price is not None and not (price >= 0 and math.isfinite(price)):
        raise UserError(f"--price_per_chip_hour={price:g}: must be a number of at least 0")
    if not flags.topology:
        given = [f"--{name}" for name in ("pick", "price_per_chip_hour") if getattr(flags, name) not in (None, False)]
        given += ["--slices"] if flags.slices != 1 else []
        given += ["--efficiency"] if flags.efficiency != 1 else []
        if given:
            raise UserError(f"{given[0]}: applies to TPU slices only; give --topology with it")


def _target(flags: argparse.Namespace):
    from moe_jax.plan.step_forecast import Target

    target = Target(flags.topology, flags.slices, flags.pick)
    _ = target.candidates  # refuses an unknown topology before anything is compiled
    return target


def _write(flags: argparse.Namespace, rows, grid) -> None:
    from etils import epath

    from moe_jax.plan import rows as rows_lib

    path = flags.out or os.path.join(flags.workdir, rows_lib.PLAN_FILE)
    with outputs.writing(path, "--out"):
        rows_lib.write_plan(epath.Path(path), {"runs": rows, "totals": rows_lib.totals(rows, grid)}, print)
