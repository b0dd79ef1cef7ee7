"""The flags of `moe-jax fit`, and the options of a fit that they stand for."""

import argparse
import dataclasses
import math
import os
import re
from collections.abc import Sequence

from moe_jax import errors
from moe_jax.cli import command

_DESCRIPTION = """Fits a scaling law to final losses and reports which coefficients the data determine.

  moe-jax fit --workdir W                                  W/results.csv -> W/law.json
  moe-jax fit --results runs.csv --law chinchilla --out law.json
  moe-jax fit --results runs.csv --law my_law.py:my_law    a law declared in a file of your own
  moe-jax fit --results runs.csv --preset krajewski2024    the paper's own objective
  moe-jax fit --results runs.parquet --group_by dataset    a law for each dataset, and their coefficients in one table
  moe-jax fit --workdir W --law step_law_lr                the best learning rate of each cell: W/step_law_lr.json
  moe-jax fit --workdir W --figures W/figures              with every picture of the fit, PNG and SVG

Iso-FLOP fits, which have no formula, are made by `moe-jax isoflop`."""

_MOST = 1_000_000  # starts, or bootstrap samples: more are a slip of the finger
_COLUMNS = (
    "for other tables: N=n_active or 'tokens=`Training FLOP`/(6*`Model Size`)'; a symbol of the law or a new column"
)
_LOSS = "column of the loss, nats per token (default %(default)s)"
_FIGURES = (
    "PNG and SVG: the fit against its data, residuals (and a table of what explains them), extrapolation, frontier,"
    " optimum, iso-FLOP curves, granularities, profiles"
)


def parser() -> argparse.ArgumentParser:
    """The parser of the verb."""
    p = command.parser("fit", _DESCRIPTION)
    _add_files(p)
    _add_tables(p)
    _add_fit(p)
    _add_intervals(p)
    _add_interval_method(p)
    _add_reports(p)
    _add_bands(p)
    return p


def _add_files(p: argparse.ArgumentParser) -> None:
    p.add_argument("--law", help="a law (default krajewski2024, or the preset's), or FILE.py:NAME")
    add_rows(
        p, "the law's file (default: law.json beside the results, or step_law_lr.json)", f"{_LOSS}; A,B: a law for each"
    )


def add_rows(p: argparse.ArgumentParser, out: str, loss: str = _LOSS) -> None:
    """The flags that name a table and its rows, of `fit` and `isoflop`; out, loss: the help of --out and --loss."""
    add = p.add_argument
    add("--workdir", help="a sweep's folder: --results W/results.csv, and what is written stands in W")
    results = "table with a row for each run: CSV, TSV, `;`-separated, JSON lines or Parquet, also .gz or .zst;"
    add("--results", help=f"{results} where it has a status column, only rows that are done are used")
    add("--out", help=out)
    add("--loss", default="eval_loss", metavar="COLUMN", help=loss)
    add("--columns", default="", metavar="NAME=EXPRESSION,…", help=_COLUMNS)
    where = "rows to use: \"G == 1 and router_type in ('S-Base', 'Dense')\""
    add("--where", default="", metavar="CONDITION", help=where)
    add("--best_of", "--best-of", default="", metavar="COLUMN", help="keep the best run of each cell")


def _add_tables(p: argparse.ArgumentParser) -> None:
    add = p.add_argument
    add("--group_by", default="", metavar="COLUMN", help="a law for each value of this column: law-VALUE.json")
    add("--weights", default="", metavar="COLUMN", help="how much each row counts: as rows repeated so often; 0: not")
    add("--sigma", default="", metavar="COLUMN", help="standard deviation of each loss, nats: rows weigh 1/sigma²")


def _add_fit(p: argparse.ArgumentParser) -> None:
    add = p.add_argument
    preset = "a paper's own objective, starts and split (joint_moe2025: made after the paper, not its own); other flags"
    add("--preset", help=f"{preset} override it")
    add("--space", choices=("log", "linear"), help="residuals of ln loss or of loss (default log)")
    add("--huber", type=float, help="residual above which the objective is linear; inf: least squares (default 1e-3)")
    add("--penalty", metavar="KIND:WEIGHT", help="l1:5e-5 or l2:1e-5 on the fitted coordinates, or none")
    add("--fix", action="append", default=[], metavar="NAME=VALUE,…", help="hold coefficients at a value")
    add("--starts", help="number of starts of the optimiser, or `grid` for the preset's (default 128)")
    add(
        "--holdout",
        metavar="RULE",
        help="rows to predict, not to fit: lowest:0.2, COLUMN:VALUE, 'flops > 5e18'; or none",
    )
    add("--drop", metavar="RULE", help="rows to leave out altogether: highest:5; or none")


def _add_intervals(p: argparse.ArgumentParser) -> None:
    add_samples(p)
    add = p.add_argument
    add("--bootstrap_fraction", type=float, default=1.0, help="share of the rows in a sample (default %(default)s)")
    add("--without_replacement", action="store_true", help="draw each row at most once; needs a fraction below 1")


def add_samples(p: argparse.ArgumentParser) -> None:
    """The flags of the bootstrap, of `fit` and `isoflop`."""
    add = p.add_argument
    samples = "bootstrap samples for the intervals (default %(default)s; 0: no intervals)"
    add("--bootstrap", type=int, default=1000, metavar="SAMPLES", help=samples)
    add("--level", type=float, default=0.8, help="share of the samples in an interval (default %(default)s: 10%%–90%%)")
    add("--seed", type=int, default=0, help="seed of the bootstrap (default %(default)s)")


def _add_bands(p: argparse.ArgumentParser) -> None:
    add = p.add_argument
    one_sided = (
        "weight (at most 1) of runs that the law lies below, against 1 for those it lies above: an under-tuned run"
        " errs upward only (default 1)"
    )
    add("--one_sided", "--one-sided", type=float, metavar="WEIGHT", help=one_sided)
    folds = "errors and coefficients without each fold: group:COLUMN leaves out one group at a time, K runs K folds"
    add("--cross_validate", "--cross-validate", default="", metavar="RULE", help=folds)


def _add_interval_method(p: argparse.ArgumentParser) -> None:
    add = p.add_argument
    method = "residuals, wild or pairs (default: residuals where the noise looks alike in all rows, else wild)"
    add("--interval_method", choices=("residuals", "wild", "pairs"), default="", help=method)
    shared = "rows with one value of it share noise (a budget, a cell) and are resampled together"
    add("--cluster", default="", metavar="COLUMN", help=shared)


def _add_reports(p: argparse.ArgumentParser) -> None:
    add = p.add_argument
    add("--profile", default="", metavar="NAME,…", help="the values of a coefficient that the data accept")
    add("--compare", default="", metavar="LAW,…", help="fit these laws to the same runs, lowest held-out error first")
    add("--leverage", type=int, default=0, metavar="RUNS", help="show the RUNS runs with the most influence")
    add("--figures", metavar="FOLDER", help=_FIGURES)


@dataclasses.dataclass(frozen=True)
class Options:
    """What the flags say about a fit of a form, with the preset's values where a flag is not given."""

    law: str
    fix: dict[str, float]
    start: object  # a number, or a grid {coefficient: values}
    caveat: str  # of the preset
    shared: dict[str, object]  # loss, columns, where, best_of, objective, split, resampling: those of a comparison too


def options(flags: argparse.Namespace) -> Options:
    """The options of laws.fit. Raises UserError for a flag that cannot be read."""
    from moe_jax import laws
    from moe_jax.laws import fitting, presets, user_file

    preset = presets.preset(flags.preset) if flags.preset else None
    law = flags.law or (preset.law if preset else "krajewski2024")
    form = user_file.find_form(law)
    shared = rows(flags) | {
        "weights": flags.weights,
        "sigma": flags.sigma,
        "objective": _objective(flags, preset.objective if preset else fitting.default_objective(form)),
        "split": laws.Split(
            drop=_rule(flags.drop, preset.drop if preset else ""),
            holdout=_rule(flags.holdout, preset.holdout if preset else ""),
        ),
        "resampling": laws.Resampling(
            samples=samples(flags),
            fraction=flags.bootstrap_fraction,
            replace=not flags.without_replacement,
            level=flags.level,
            seed=flags.seed,
            method=flags.interval_method,
            cluster=flags.cluster,
        ),
    }
    return Options(
        law=law,
        fix={**(preset.fix if preset else {}), **_fixed(flags.fix)},
        start=_start(flags.starts, preset),
        caveat=preset.caveat if preset else "",
        shared=shared,
    )


def out_path(flags: argparse.Namespace, results: str, form) -> str:
    """The law's file: a law of rates stands beside the law of losses."""
    name = "law" if form.quantity == "loss" else form.name
    return flags.out or os.path.join(flags.workdir or os.path.dirname(results), f"{name}.json")


def samples(flags: argparse.Namespace) -> int:
    """The number of bootstrap samples. Raises UserError for one that cannot be computed."""
    _refuse_above_most("bootstrap", flags.bootstrap)
    return flags.bootstrap


def rows(flags: argparse.Namespace) -> dict[str, object]:
    """The options that select rows and columns, of laws.fit and laws.isoflop.fit."""
    from moe_jax.laws import expressions

    columns = expressions.assignments(flags.columns) if flags.columns else None
    return {"loss": losses(flags)[0], "columns": columns, "where": flags.where, "best_of": flags.best_of}


def losses(flags: argparse.Namespace) -> list[str]:
    """The columns of --loss; commas separate them, but not within back-quotes. Raises UserError where there is none."""
    named = [
        part.strip().removeprefix("`").removesuffix("`")
        for part in re.split(r",(?=(?:[^`]*`[^`]*`)*[^`]*$)", flags.loss)
    ]
    if not all(named) or len(set(named)) < len(named):
        raise errors.UserError(f"--loss is {flags.loss!r}, must be a column, or several that differ: a,b")
    return named


def number(text: str, flag: str) -> float:
    """A finite number of a flag. Raises UserError for anything else."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise errors.UserError(f"{flag}: {text!r} is not a number")
    return value


def _objective(flags, default):
    changes = {k: v for k in ("space", "huber", "one_sided") if (v := getattr(flags, k)) is not None}
    if flags.penalty:
        kind, _, weight = flags.penalty.partition(":")
        if kind not in ("l1", "l2", "none"):
            raise errors.UserError(f"--penalty is {flags.penalty!r}, must be l1:WEIGHT, l2:WEIGHT or none")
        changes |= {"l1": 0.0, "l2": 0.0}
        if kind != "none":
            changes[kind] = number(weight, "--penalty")
    return dataclasses.replace(default, **changes)


def _start(asked: str | None, preset):
    """A number of starts, or the preset's grid; the grid is the default of a preset that has one."""
    from moe_jax.laws import starts

    grid = preset.starts if preset else None
    if asked is None:
        return starts.DEFAULT if grid is None else grid
    if asked == "grid":
        if grid is None:
            raise errors.UserError("--starts grid needs a --preset that has one")
        return grid
    try:
        number = int(asked)
    except ValueError as e:
        raise errors.UserError(f"--starts is {asked!r}, must be a number or grid") from e
    _refuse_above_most("starts", number)
    return number


def _refuse_above_most(flag: str, number: int) -> None:
    if number > _MOST:
        raise errors.UserError(f"--{flag} is {number:,}: at most {_MOST:,} can be computed")


def _rule(asked: str | None, of_preset: str) -> str:
    """The rule of --drop or --holdout; `none` switches the preset's off."""
    return of_preset if asked is None else "" if asked == "none" else asked


def _fixed(given: Sequence[str]) -> dict[str, float]:
    fixed = {}
    for pair in (p for flag in given for p in flag.split(",")):
        name, equals, value = pair.partition("=")
        if not equals:
            raise errors.UserError(f"--fix is {pair!r}, must be NAME=VALUE")
        fixed[name.strip()] = number(value, "--fix")
    return fixed
