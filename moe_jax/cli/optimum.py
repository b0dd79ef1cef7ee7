"""`moe-jax optimum`: N, D, G (and S) of lowest loss for each budget under a law, with intervals."""

import os
from collections.abc import Sequence

from etils import epath

from moe_jax import errors, files
from moe_jax.cli import command, optimum_flags, optimum_isoflop, optimum_next, optimum_plans, optimum_table, outputs


def main(argv: Sequence[str]) -> int:
    parser = optimum_flags.parser()
    flags = parser.parse_args(argv)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from moe_jax import laws
    from moe_jax.laws import user_file

    source = user_file.declare(flags.law)  # a law.json, or the name of a published law
    budgets = optimum_flags.budgets(flags)
    if (found := _isoflop(source)) is not None:
        command.refuse_idle(parser, flags, ("law", "flops", "out"), f"{found.kind}, which has no formula")
        rows = optimum_isoflop.optima(found, [b.planned for b in budgets])
        optimum_isoflop.show(found, rows)
        return _write(flags.out or _beside(source, "optimum"), rows)
    planner = optimum_flags.planner(flags, laws.find(source))
    if flags.next:
        return _next(parser, flags, planner, source)
    dense = laws.find(flags.dense) if flags.dense else None
    notes: list[str] = []
    if budgets[0].unit == "flops":
        planned = optimum_plans.by_flops(planner, dense, budgets)
    else:
        planned, notes = optimum_plans.by_clock(planner, dense, budgets, flags)
    optimum_table.show(planner, planned, notes)
    return _write(flags.out or _beside(source, "optimum"), optimum_table.rows(planned))


def _next(parser, flags, planner, source: str) -> int:
    from moe_jax import laws

    budgets = optimum_flags.budgets(flags)
    if budgets[0].unit != "flops":
        raise errors.UserError("--next ranks runs for the optimum of budgets of --flops; leave the other budgets out")
    command.refuse_idle(parser, flags, (set(vars(flags)) - {"dense"}), "--next, which compares runs and not models")
    cells = optimum_next.read(flags.next, planner)
    found = laws.next_runs(planner, [b.planned for b in budgets], cells.axes, cells.flops, flags.picks)
    optimum_next.show(cells, found, planner, [b.planned for b in budgets], flags.picks)
    return _write(flags.out or _beside(source, "next"), optimum_next.rows_of(cells, found))


def _isoflop(source: str):
    """The iso-FLOP fits in a file; None where it is a law with a form, or no file."""
    from moe_jax import laws

    return laws.isoflop.load(source) if source.endswith(".json") and epath.Path(source).exists() else None


def _beside(source: str, name: str) -> str | None:
    """NAME.csv beside a law.json; None for a published law."""
    return os.path.join(os.path.dirname(source), f"{name}.csv") if source.endswith(".json") else None


def _write(out: str | None, rows: Sequence[dict]) -> int:
    if out:
        outputs.write(out, files.to_csv(rows), "--out")
        print(f"optimum: {out}")
    return errors.DONE
