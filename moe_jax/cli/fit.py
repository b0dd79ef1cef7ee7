"""`moe-jax fit`: results.csv -> law.json, and tables of what the data determine about the law."""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import os
from collections.abc import Callable, Sequence

from etils import epath

from moe_jax import errors, files
from moe_jax.cli import fit_figures, fit_flags, fit_groups, fit_progress, fit_tables, outputs

# Flags that do not change the law.
_BESIDE = ("workdir", "results", "out", "profile", "compare", "leverage", "figures", "cross_validate")


def main(argv: Sequence[str]) -> int:
    parser = fit_flags.parser()
    flags = parser.parse_args(argv)
    if not (flags.results or flags.workdir):
        raise errors.UserError("fit needs --results FILE or --workdir W (for W/results.csv)")
    results = flags.results or os.path.join(flags.workdir, "results.csv")
    if flags.figures:
        outputs.refuse_unwritable(os.path.join(flags.figures, "fit.png"), "--figures")

    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a fit needs float64 and no accelerator
    if flags.group_by or len(fit_flags.losses(flags)) > 1:
        fit_groups.run(parser, flags, results)
    else:
        _fit(flags, results)
    return errors.DONE


def _fit(flags: argparse.Namespace, results: str) -> None:
    """Fits a law, writes it and shows it, with what else the flags ask for."""
    from moe_jax import laws
    from moe_jax.laws import rate_figure, user_file

    options = fit_flags.options(flags)
    fit_tables.say(*filter(None, [options.caveat]))
    form = user_file.find_form(options.law)
    out = fit_flags.out_path(flags, results, form)
    request = _request(flags, results, form)
    shown_before = not (flags.profile or flags.compare or flags.leverage or flags.figures or flags.cross_validate)
    if shown_before and (before := _fitted_before(out, request)) is not None:
        fit_tables.show_law(before, out)
        print("(these results were fitted with these flags before: shown again)")
        return
    outputs.refuse_unwritable(out, "--out")
    with fit_progress.shown() as progress:
        fitted = laws.fit(
            results, law=options.law, fix=options.fix, start=options.start, progress=progress, **options.shared
        )
    with outputs.writing(out, "--out"):
        fitted.law.save(out, request=request)
    fit_tables.show_law(fitted.law, out)
    figures = _profiles(fitted, flags.profile)
    unit = fit_tables.unit(form)
    if flags.leverage:
        fit_tables.show_leverage(laws.leverage(fitted), flags.leverage, unit)
    if flags.cross_validate:
        fit_tables.show_cross_validation(laws.cross_validate(fitted, flags.cross_validate), unit)
    if flags.compare:
        _compare(results, flags.compare.split(","), options)
    if flags.figures and form.quantity == laws.LOSS:
        fit_figures.draw(flags.figures, fitted, figures)
    elif flags.figures:
        fit_figures.write(flags.figures, {"fit": lambda: rate_figure.best_values(fitted)} | figures)


def _profiles(fitted, names: str) -> dict[str, Callable]:
    """Shows the profiles of coefficients. Returns their figures by name."""
    from moe_jax import laws

    figures = {}
    for name in filter(None, names.split(",")):
        profile = laws.profile(fitted, name, _values_around(fitted.law, name))
        fit_tables.show_profile(profile, name, laws.accepted(profile))
        figures[f"profile_{name}"] = lambda profile=profile, name=name: laws.plots.profile(profile, name)
    return figures


def _values_around(law, name: str):
    """Values of a coefficient from a tenth of its value to ten times (or as far to either side)."""
    import numpy as np

    from moe_jax.laws import diagnostics

    diagnostics.check_coefficient(law, name)
    coefficient, value = law.form.coefficients[name], law.coefficients[name]
    reach = np.linspace(-1, 1, 33)
    values = value * 10**reach if coefficient.positive else value + reach * max(abs(value), 0.1)
    return np.unique(np.clip(values, *coefficient.bounds))


def _compare(results: str, names: Sequence[str], options: fit_flags.Options) -> None:
    from moe_jax import laws

    shared = dict(options.shared)
    if not shared["split"].holdout:
        shared["split"] = dataclasses.replace(shared["split"], holdout="lowest:0.2")
    if isinstance(options.start, int):  # a grid belongs to one form
        shared["start"] = options.start
    fit_tables.show_comparison(laws.compare(results, names, **shared), shared["split"].holdout)


def _request(flags: argparse.Namespace, results: str, form) -> str:
    """A digest of everything that determines the law: the flags, the form's file, the results and this version.

    law.json keeps it, so that the same request is answered without a fit."""
    asked = {k: v for k, v in sorted(vars(flags).items()) if k not in _BESIDE}
    digest = hashlib.sha256(f"{importlib.metadata.version('moe_jax')} {asked} {form.file}".encode())
    try:
        digest.update(files.read_file(epath.Path(results)))
    except (FileNotFoundError, NotADirectoryError):
        raise errors.UserError(f"there is no results file {results}; `moe-jax collect` writes one") from None
    return digest.hexdigest()


def _fitted_before(out: str, request: str):
    """The law at `out`, if the same request gave it."""
    from moe_jax import laws

    try:
        return laws.load(out) if files.read_json(epath.Path(out)).get("request") == request else None
    except files.UnreadableFile:  # it may be sound
        raise
    except (errors.UserError, FileNotFoundError):  # none yet, or a damaged one: it is written again
        return None
