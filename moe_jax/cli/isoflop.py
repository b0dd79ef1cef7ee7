"""`moe-jax isoflop`: the best size of each budget of FLOPs, and its power law; or a surface over size and sparsity."""

import argparse
import os
from collections.abc import Mapping, Sequence

from moe_jax import errors
from moe_jax.cli import command, fit_figures, fit_flags, isoflop_tables, outputs

_DESCRIPTION = """Finds the model size of lowest loss at each budget of FLOPs, without a formula of the loss.

  moe-jax isoflop --workdir W                      a parabola for each budget, N*(C) and D*(C) through their minima
  moe-jax isoflop --workdir W --method window      the parabola through the runs near the minimum alone
  moe-jax isoflop --workdir W --method cubic       a curve that rises faster on one side; akima: an interpolation
  moe-jax isoflop --workdir W --method envelope    the lower envelope of the training curves in W/runs/*/metrics.jsonl
  moe-jax isoflop --results runs.csv --method envelope    the lower envelope of final losses
  moe-jax isoflop --workdir W --method surface     loss over N and sparsity, a surface for each budget

A parabola's minimum is biased where the sizes of a budget lie off it or reach further to one side; isoflop warns where
that is more than the minimum's interval. `moe-jax optimum --law FILE` follows the power laws to other budgets."""


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    flags = parser.parse_args(argv)
    if not (flags.results or flags.workdir):
        raise errors.UserError("isoflop needs --results FILE or --workdir W (for W/results.csv)")
    if len(fit_flags.losses(flags)) > 1:
        raise errors.UserError(f"--loss={flags.loss}: isoflop takes one column")
    results = flags.results or os.path.join(flags.workdir, "results.csv")
    if flags.figures:
        outputs.refuse_unwritable(os.path.join(flags.figures, "isoflop.png"), "--figures")
    out = flags.out or os.path.join(flags.workdir or os.path.dirname(results), f"isoflop_{flags.method}.json")
    outputs.refuse_unwritable(out, "--out")

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from moe_jax import laws
    from moe_jax.laws.isoflop import budgets

    found = laws.isoflop.fit(
        results,
        flags.method,
        **fit_flags.rows(flags),
        budgets=[fit_flags.number(C, "--budgets") for C in flags.budgets.split(",")] if flags.budgets else None,
        tolerance=budgets.TOLERANCE if flags.tolerance is None else flags.tolerance,
        resampling=laws.Resampling(samples=fit_flags.samples(flags), level=flags.level, seed=flags.seed),
        logged=_logged(flags.workdir) if flags.method == "envelope" and flags.workdir and not flags.results else None,
    )
    with outputs.writing(out, "--out"):
        laws.isoflop.save(found, out)
    isoflop_tables.show(found, out)
    if flags.figures:
        fit_figures.write(flags.figures, {f"isoflop_{flags.method}": lambda: laws.plots.isoflop(found)})
    return errors.DONE


def _parser() -> argparse.ArgumentParser:
    p = command.parser("isoflop", _DESCRIPTION)
    add = p.add_argument
    methods = ("parabola", "window", "cubic", "akima", "envelope", "surface")
    add("--method", choices=methods, default="parabola", help="how the minimum is found (default %(default)s)")
    fit_flags.add_rows(p, "the fits' file (default: isoflop_METHOD.json beside the results)")
    add("--budgets", default="", metavar="FLOPS,…", help="the budgets (default: found in the runs)")
    add("--tolerance", type=float, help="how far a run may lie from its budget (default 0.1: 10%%)")
    fit_flags.add_samples(p)
    add("--figures", metavar="FOLDER", help="PNG and SVG: the curves, their minima and the power laws; or the surfaces")
    return p


def _logged(workdir: str) -> Mapping:
    """Run's name -> (tokens, losses) that it logged, (steps,) each; runs without a logged loss are not in it."""
    import numpy as np

    from moe_jax.sweep.read_many import read_many
    from moe_jax.sweep.workdir import Workdir
    from moe_jax.text import number

    work = Workdir(workdir)
    names = [run.name for run in work.existing_manifest().runs]

    def curve(name: str):
        steps = work.run_dir(name).read_metrics()
        points = [(t, x) for s in steps if (t := number(s.get("tokens"))) and (x := number(s.get("loss"))) and t > 0]
        return np.array(points, np.float64).reshape(-1, 2).T

    curves = zip(names, read_many(curve, names), strict=True)
    return {name: tuple(found) for name, found in curves if found.shape[1]}
