"""`moe-jax fit`: results.csv -> law.json, and a table of what the data say and do not say about the law."""

import dataclasses
import hashlib
import importlib.metadata
import math
import os
from collections.abc import Callable, Mapping, Sequence

from etils import epath

from moe_jax import command, errors, files, fit_tables

_DESCRIPTION = """Fits a scaling law to final losses and says which of its coefficients the data determine.

  moe-jax fit --workdir W                                  W/results.csv -> W/law.json
  moe-jax fit --results runs.csv --law chinchilla --out law.json
  moe-jax fit --results runs.csv --preset krajewski2024    the paper's own objective
  moe-jax fit --workdir W --law isoflop_parabolas          N*(C), D*(C) through the minima of each budget's parabola
  moe-jax fit --workdir W --law isoflop_surface            loss over N and sparsity, a surface a budget"""


_COLUMNS = (
    "for other tables: N=n_active or 'tokens=`Training FLOP`/(6*`Model Size`)'; a symbol of the law or a new column"
)
_WHERE = "rows to use: \"G == 1 and router_type in ('S-Base', 'Dense')\""


def main(argv: Sequence[str]) -> int:
    flags = _parser().parse_args(argv)
    if not (flags.results or flags.workdir):
        raise errors.UserError("fit needs --results FILE or --workdir W (for W/results.csv)")
    results = flags.results or os.path.join(flags.workdir, "results.csv")
    out = flags.out or os.path.join(flags.workdir or os.path.dirname(results), "law.json")

    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a fit needs float64 and no accelerator
    from moe_jax import laws

    if flags.law in laws.isoflop.KINDS:
        return _isoflop(laws, flags, results)
    if flags.budgets or flags.tolerance is not None:
        raise errors.UserError(
            f"--budgets and --tolerance are of {' and '.join(laws.isoflop.KINDS)}, not of other laws"
        )
    request = _request(flags, results)
    again = not (flags.profile or flags.compare or flags.leverage or flags.figures)
    if again and (before := _answered(laws, out, request)) is not None:
        fit_tables.show_law(before, out)
        print("(these results were fitted with these flags before: shown again)")
        return errors.DONE
    from moe_jax.laws import expressions, presets

    base = presets.preset(flags.preset) if flags.preset else None
    options = {
        "loss": flags.loss,
        "columns": expressions.assignments(flags.columns) if flags.columns else None,
        "where": flags.where,
        "best_of": flags.best_of,
        "objective": _objective(flags, base.objective if base else laws.Objective()),
        "split": laws.Split(
            drop=_first_given(flags.drop, base.drop if base else ""),
            holdout=_first_given(flags.holdout, base.holdout if base else ""),
        ),
        "resampling": laws.Resampling(
            samples=flags.bootstrap,
            fraction=flags.bootstrap_fraction,
            replace=not flags.without_replacement,
            level=flags.level,
            seed=flags.seed,
        ),
    }
    start = _starts(flags.starts, base)
    fitted = laws.fit(
        results,
        law=flags.law or (base.law if base else "krajewski2024"),
        fix={**(base.fix if base else {}), **_assignments(flags.fix, "--fix")},
        start=start,
        **options,
    )
    fitted = dataclasses.replace(fitted, law=dataclasses.replace(fitted.law, request=request))
    fitted.law.save(out)
    fit_tables.show_law(fitted.law, out)
    pictures = {"fit": lambda: laws.plots.fit(fitted)}
    for name in filter(None, flags.profile.split(",")):
        profile = laws.profile(fitted, name, _around(laws, fitted.law, name))
        fit_tables.show_profile(profile, name, laws.accepted(profile))
        pictures[f"profile_{name}"] = lambda profile=profile, name=name: laws.plots.profile(profile, name)
    if flags.leverage:
        fit_tables.show_leverage(laws.leverage(fitted), flags.leverage)
    if flags.compare:
        if not options["split"].holdout:
            options["split"] = dataclasses.replace(options["split"], holdout="lowest:0.2")
        if isinstance(start, int):  # a grid is one form's
            options["start"] = start
        table = laws.compare(results, flags.compare.split(","), **options)
        fit_tables.show_comparison(table, options["split"].holdout)
    _draw(flags.figures, pictures)
    return errors.DONE


def _isoflop(laws, flags, results: str) -> int:
    """Laws without a form: parabolas or a surface for each budget."""
    from moe_jax.laws import budgets, expressions

    meant = {"budgets", "tolerance", "bootstrap", "level", "seed", "loss", "columns", "where", "best_of", "figures"}
    meant |= {"law", "workdir", "results", "out"}
    if idle := [k for k, v in vars(flags).items() if k not in meant and v != _parser().get_default(k)]:
        raise errors.UserError(f"--{idle[0]} means nothing for {flags.law}, which has no coefficients of a form")
    out = flags.out or os.path.join(flags.workdir or os.path.dirname(results), f"{flags.law}.json")
    found = laws.isoflop.fit(
        results,
        flags.law,
        loss=flags.loss,
        columns=expressions.assignments(flags.columns) if flags.columns else None,
        where=flags.where,
        best_of=flags.best_of,
        budgets=[_number(v, "--budgets") for v in flags.budgets.split(",")] if flags.budgets else None,
        tolerance=budgets.TOLERANCE if flags.tolerance is None else flags.tolerance,
        resampling=laws.Resampling(samples=flags.bootstrap, level=flags.level, seed=flags.seed),
    )
    found.save(out)
    fit_tables.show_isoflop(found, out)
    _draw(flags.figures, {flags.law: lambda: laws.plots.isoflop(found)})
    return errors.DONE


def _around(laws, law, name: str):
    """Values of a coefficient from a tenth of its value to ten times (or as far to either side)."""
    import numpy as np

    laws.scrutiny.known(law, name)
    coefficient, value = law.form.coefficients[name], law.coefficients[name]
    reach = np.linspace(-1, 1, 33)
    values = value * 10**reach if coefficient.positive else value + reach * max(abs(value), 0.1)
    return np.unique(np.clip(values, *coefficient.bounds))


def _draw(folder: str | None, pictures: Mapping[str, Callable]) -> None:
    """The figures as PNGs in a folder, where one was asked for."""
    if not folder:
        return
    from moe_jax.figures import to_bytes

    path = epath.Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for name, draw in pictures.items():
        files.write_atomic(path / f"{name}.png", to_bytes(draw(), "png"))
    print(f"figures: {folder} ({', '.join(pictures)})")


def _parser():
    p = command.parser("fit", _DESCRIPTION)
    p.add_argument("--workdir", help="a sweep's folder: --results W/results.csv --out W/law.json")
    p.add_argument(
        "--results", help="CSV with one row a run; only rows with status done are used, where it has a status"
    )
    p.add_argument("--law", help="which form (default krajewski2024, or the preset's), or an isoflop_…")
    p.add_argument("--out", help="where the law goes (default: law.json beside the results; isoflop_….json)")
    p.add_argument("--loss", default="eval_loss", help="column with the loss, nats per token (default %(default)s)")
    p.add_argument("--columns", default="", metavar="NAME=EXPRESSION,…", help=_COLUMNS)
    p.add_argument("--where", default="", metavar="CONDITION", help=_WHERE)
    p.add_argument("--best_of", "--best-of", default="", metavar="COLUMN", help="keep the best run of each cell")
    p.add_argument("--preset", help="a paper's own objective, starts and split; other flags win over it")
    p.add_argument("--space", choices=("log", "linear"), help="residuals of ln loss or of loss (default log)")
    p.add_argument("--huber", type=float, help="where squares turn into absolute values; inf: squares (default 1e-3)")
    p.add_argument("--penalty", metavar="KIND:WEIGHT", help="l1:5e-5 or l2:1e-5 on the fitted coordinates, or none")
    p.add_argument("--fix", action="append", default=[], metavar="NAME=VALUE,…", help="hold coefficients")
    p.add_argument("--starts", help="how many starts of the optimiser, or `grid` for the preset's (default 128)")
    p.add_argument("--holdout", metavar="RULE", help="lowest:0.2, or column:value; predicted, not fitted; or none")
    p.add_argument("--drop", metavar="RULE", help="highest:5: rows that take no part at all; or none")
    p.add_argument(
        "--bootstrap", type=int, default=1000, metavar="SAMPLES", help="for intervals (default %(default)s; 0: none)"
    )
    p.add_argument(
        "--bootstrap_fraction", type=float, default=1.0, help="share of the rows in a sample (default %(default)s)"
    )
    p.add_argument("--without_replacement", action="store_true", help="draw rows once each; needs a fraction below 1")
    p.add_argument(
        "--level", type=float, default=0.8, help="what the intervals hold (default %(default)s: 10%% to 90%%)"
    )
    p.add_argument(
        "--profile", default="", metavar="NAME,…", help="what the data accept of a coefficient, others refitted"
    )
    p.add_argument("--compare", default="", metavar="LAW,…", help="these laws on the same runs, by held-out error")
    p.add_argument("--leverage", type=int, default=0, metavar="RUNS", help="show so many of the runs that decide most")
    p.add_argument("--figures", metavar="FOLDER", help="PNGs: fit against data, profiles, parabolas or surfaces")
    p.add_argument("--budgets", default="", metavar="FLOPS,…", help="of iso-FLOP fits (default: runs of like FLOPs)")
    p.add_argument("--tolerance", type=float, help="share of a budget within which a run belongs to it (default 0.1)")
    p.add_argument("--seed", type=int, default=0, help="of the bootstrap (default %(default)s)")
    return p


def _objective(flags, base):
    changes = {k: v for k in ("space", "huber") if (v := getattr(flags, k)) is not None}
    if flags.penalty:
        kind, _, weight = flags.penalty.partition(":")
        if kind not in ("l1", "l2", "none"):
            raise errors.UserError(f"--penalty is {flags.penalty!r}, must be l1:WEIGHT, l2:WEIGHT or none")
        changes |= {"l1": 0.0, "l2": 0.0}
        if kind != "none":
            changes[kind] = _number(weight, "--penalty")
    return dataclasses.replace(base, **changes)


def _starts(asked: str | None, base):
    """A number, or a preset's grid; a preset that has a grid means it."""
    from moe_jax.laws import starts

    grid = base.starts if base else None
    if asked is None:
        return starts.DEFAULT if grid is None else grid
    if asked == "grid":
        if grid is None:
            raise errors.UserError("--starts grid needs a --preset that has one")
        return grid
    try:
        return int(asked)
    except ValueError as e:
        raise errors.UserError(f"--starts is {asked!r}, must be a number or grid") from e


def _first_given(asked: str | None, otherwise: str) -> str:
    """A flag, or the preset's; `none` switches the preset's off."""
    return otherwise if asked is None else "" if asked == "none" else asked


def _assignments(pairs: Sequence[str], flag: str) -> dict[str, float]:
    out = {}
    for pair in (p for given in pairs for p in given.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise errors.UserError(f"{flag} is {pair!r}, must be NAME=VALUE")
        out[name.strip()] = _number(value, flag)
    return out


def _number(text: str, flag: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise errors.UserError(f"{flag}: {text!r} is not a number")
    return value


# Flags that do not change the law.
_BESIDE = ("workdir", "results", "out", "profile", "compare", "leverage", "figures")


def _request(flags, results: str) -> str:
    """A digest of everything that the law follows from: the flags, the results and this version."""
    asked = {k: v for k, v in sorted(vars(flags).items()) if k not in _BESIDE}
    digest = hashlib.sha256(f"{importlib.metadata.version('moe_jax')} {asked}".encode())
    try:
        digest.update(epath.Path(results).read_bytes())
    except FileNotFoundError:
        raise errors.UserError(f"there is no results file {results}; `moe-jax collect` writes one") from None
    return digest.hexdigest()


def _answered(laws, out: str, request: str):
    """The law at `out`, if it is the answer to the same request."""
    try:
        law = laws.load(out)
    except errors.UserError:  # none yet, or a damaged one: it is written again
        return None
    return law if law.request == request else None


if __name__ == "__main__":
    command.end(main)
