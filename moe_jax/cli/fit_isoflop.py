"""`moe-jax fit --law isoflop_…`: parabolas or a surface for each budget of FLOPs."""

import argparse
import os
from collections.abc import Callable

from moe_jax import errors
from moe_jax.cli import command, fit_flags, fit_tables, outputs

_MEANT = (
    "workdir", "results", "law", "out", "loss", "columns", "where", "best_of", "bootstrap", "level", "seed", "figures",
    "budgets", "tolerance",
)  # fmt: skip


def run(parser: argparse.ArgumentParser, flags: argparse.Namespace, results: str) -> dict[str, Callable]:
    """Makes iso-FLOP fits, writes them and shows them. Returns their figures by name. Raises UserError for flags that
    need a law with a form."""
    from moe_jax import laws
    from moe_jax.laws.isoflop import budgets

    command.refuse_idle(parser, flags, _MEANT, f"{flags.law}, which has no coefficients of a form")
    if len(fit_flags.losses(flags)) > 1:
        raise errors.UserError(f"--loss names several columns, and {flags.law} takes one")
    out = flags.out or os.path.join(flags.workdir or os.path.dirname(results), f"{flags.law}.json")
    outputs.refuse_unwritable(out, "--out")
    found = laws.isoflop.fit(
        results,
        flags.law,
        **fit_flags.rows(flags),
        budgets=[fit_flags.number(C, "--budgets") for C in flags.budgets.split(",")] if flags.budgets else None,
        tolerance=budgets.TOLERANCE if flags.tolerance is None else flags.tolerance,
        resampling=laws.Resampling(samples=flags.bootstrap, level=flags.level, seed=flags.seed),
    )
    with outputs.writing(out, "--out"):
        found.save(out)
    fit_tables.show_isoflop(found, out)
    return {flags.law: lambda: laws.plots.isoflop(found)}
