"""`moe-jax fit --group_by=COLUMN --loss=A,B`: a law for each group and loss, and their coefficients in one table."""

import argparse
import re
from collections.abc import Sequence
from pathlib import PurePath

from moe_jax import errors
from moe_jax import text as text_lib
from moe_jax.cli import fit_flags, fit_progress, fit_tables, outputs, tables

_OF_ONE_FIT = ("profile", "compare", "leverage", "figures", "cross_validate")
_UNSAFE = re.compile(r"[^A-Za-z0-9._=+-]+")
_LONGEST = 60  # characters of a group in a file's name


def run(parser: argparse.ArgumentParser, flags: argparse.Namespace, results: str) -> None:
    """Fits each group and loss, writes a law for each, and shows them.

    Raises UserError for flags that show one fit, and WorkFailed, after all, where a group could not be fitted."""
    from moe_jax import laws
    from moe_jax.laws import user_file

    if idle := [name for name in _OF_ONE_FIT if getattr(flags, name) != parser.get_default(name)]:
        raise errors.UserError(
            f"--{idle[0]} is for one fit, and --group_by and --loss ask for several; --where selects a group"
        )
    options, losses = fit_flags.options(flags), fit_flags.losses(flags)
    fit_tables.say(*filter(None, [options.caveat]))
    out = fit_flags.out_path(flags, results, user_file.find_form(options.law))
    outputs.refuse_unwritable(out, "--out")
    shared = options.shared | {"losses": losses, "fix": options.fix, "start": options.start}
    del shared["loss"]
    fits, paths = [], []
    with fit_progress.shown() as progress:
        for one in laws.fit_groups(results, options.law, group_by=flags.group_by, progress=progress, **shared):
            fits.append(one)
            parts = [one.group] * bool(flags.group_by) + [one.loss] * (len(losses) > 1)
            paths.append(_free_path(out, parts, paths))
            if one.fit is not None:
                with outputs.writing(paths[-1], "--out"):
                    one.fit.law.save(paths[-1])
    refused = [one for one in fits if one.fit is None]
    if len(refused) == len(fits):
        raise errors.UserError(f"no group could be fitted; {_named(refused[0])}: {refused[0].refused}")
    _show(fits, paths, flags.group_by)
    if refused:
        raise errors.WorkFailed(
            f"{len(refused)} of {len(fits)} fits could not be made, first {_named(refused[0])}: {refused[0].refused}"
        )


def _free_path(out: str, parts: Sequence[str], taken: Sequence[str]) -> str:
    """out with the parts in its name: law.json -> law-c4.json. A name that is taken, in any case, gets a number."""
    stem = out.removesuffix(".json") + "".join(f"-{_UNSAFE.sub('_', part)[:_LONGEST]}" for part in parts)
    path, known = f"{stem}.json", {p.casefold() for p in taken}
    for i in range(2, len(taken) + 3):
        if path.casefold() not in known:
            break
        path = f"{stem}-{i}.json"
    return path


def _named(one) -> str:
    return text_lib.one_line(f"{one.group} ({one.loss})" if one.group else one.loss)


def _show(fits: Sequence, paths: Sequence[str], group_by: str) -> None:
    """The coefficients of all fits, coefficient by coefficient, and then a line for each fit."""
    law = next(one.fit.law for one in fits if one.fit is not None)
    several = len({one.loss for one in fits}) > 1

    def labels(group: str, loss: str) -> list[str]:
        return [group] * bool(group_by) + [loss] * several

    made = [one for one in fits if one.fit is not None]
    rows = [
        (name, *labels(one.group, one.loss), *fit_tables.coefficient_cells(one.fit.law, name))
        for name in law.form.names
        for one in made
    ]
    is_loss = law.form.quantity == "loss"
    print(f"{law.name}: {'L' if is_loss else law.form.quantity} = {law.form.formula}")
    named = labels(group_by, "loss")
    tables.show(tables.Table(("", *named, ">value", f"{law.level:.0%} interval", ""), rows))
    rows = [
        (*labels(one.group, one.loss), *_line(one.fit), PurePath(path).name if one.fit else "not fitted")
        for one, path in zip(fits, paths, strict=True)
    ]
    counted = ">runs" if is_loss else ">cells"
    tables.show(tables.Table((*named, counted, ">RMSE", ">held out", ">warnings", "law"), rows))
    print(f"laws, each with its notes and warnings: {PurePath(paths[0]).parent}")


def _line(fit) -> tuple[str, str, str, str]:
    """Runs or cells fitted, errors (nats; of a law of rates, logarithms), and how many warnings a fit has; dashes
    without one."""
    if fit is None:
        return ("–",) * 4
    law = fit.law
    held_out = text_lib.fixed(law.errors.get("rmse_holdout"), 4)
    return str(law.data.n_fit), f"{law.errors['rmse_fit']:.4f}", held_out, str(len(law.identifiability.warnings))
