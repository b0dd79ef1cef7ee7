"""`moe-jax plan`: what a config's grid is and costs, before anything is queued; no device, and no store, is needed."""

import argparse
import math
import os
from collections.abc import Sequence

from moe_jax import command, configfile, errors
from moe_jax.errors import UserError

DESCRIPTION = """What each run of a config's grid is (parameters, tokens, steps, FLOPs), and what they sum to.

  moe-jax plan --config=configs/krajewski2024.py:table3 --config.model.vocabulary_size=50257
  moe-jax plan --config=configs/krajewski2025.py:11b --topology=v5p:4x4x4 --workdir=gs://bucket/k25

With --topology the train step of every distinct shape is compiled for those chips (on this machine, which needs none of
them, but libtpu): does it fit, and what is the least time that it takes at the chip's published rates. Compiles are
kept, so the second time is instant, and a plan that was stopped goes on. Ends with 1 where a run cannot be done so."""


def main(argv: Sequence[str]) -> int:
    config_args, others = configfile.split(argv)
    flags = _parser().parse_args(others)
    _check(flags)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from moe_jax import outlook, plan_rows, plan_table, tables

    file = configfile.load(config_args)
    grid = outlook.of(file)
    if flags.only:
        grid = grid.only(flags.only)
    rates = plan_rows.Rates(flags.efficiency, flags.price_per_chip_hour)
    rows = plan_rows.rows(grid)
    missing: UserError | None = None
    if flags.topology:
        from moe_jax import forecasts

        if missing := forecasts.missing_compiler():
            print("without a compiler for TPUs there is no forecast; the rest of the plan:")
        else:
            rows = forecasts.add(rows, grid.runs, _target(flags), rates, jobs=flags.jobs)
    tables.show(plan_table.table(rows, rates))
    print("\n".join([*plan_table.words(rows, rates, grid), *file.refused]))
    if out := _out(flags):
        _write(out, rows, grid)
    if missing:
        raise missing
    undoable = [r for r in rows if r["refusal"] or not r.get("fits", True)]
    return errors.FAILED if undoable else errors.DONE


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("plan", DESCRIPTION)
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="these runs of the grid, for example n25m-*"
    )
    parser.add_argument("--workdir", metavar="W", help="write W/plan.json")
    parser.add_argument("--out", metavar="FILE", help="write the plan there instead")
    group = parser.add_argument_group("TPU slices")
    group.add_argument(
        "--topology",
        metavar="NAME",
        help="a slice: v5e:4x4, v5p:2x2x4, …; or the smallest that fits of one kind: auto:v5p (auto: v5e)",
    )
    group.add_argument("--slices", type=int, default=1, metavar="N", help="so many of them together (default 1)")
    group.add_argument(
        "--pick",
        action="store_true",
        help="for each shape, a mesh and the fewest microbatches that fit, instead of the config's; never the batch",
    )
    group.add_argument("--jobs", type=int, default=2, metavar="N", help="compiles at a time (default 2)")
    group.add_argument(
        "--efficiency",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="of the roofline's rate that is reached, for the hours (default 1: a bound)",
    )
    group.add_argument(
        "--price_per_chip_hour", type=float, metavar="PRICE", help="what a chip costs you an hour; there is no default"
    )
    parser.epilog = configfile.HELP
    return parser


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
            raise UserError(f"{given[0]}: says something of TPU slices, so --topology is needed beside it")


def _target(flags: argparse.Namespace):
    from moe_jax.forecast import Target

    target = Target(flags.topology, flags.slices, flags.pick)
    _ = target.candidates  # a name that is none is said before anything is compiled
    return target


def _out(flags: argparse.Namespace) -> str | None:
    from moe_jax import plan_file

    return flags.out or (os.path.join(flags.workdir, plan_file.NAME) if flags.workdir else None)


def _write(out: str, rows, grid) -> None:
    from etils import epath

    from moe_jax import plan_file, plan_rows

    plan_file.write(epath.Path(out), {"runs": rows, "totals": plan_rows.totals(rows, grid)}, print)


if __name__ == "__main__":
    command.end(main)
