"""The pictures of `moe-jax fit --figures` and `moe-jax isoflop --figures`: PNG and SVG of each, in one folder."""

from collections.abc import Callable, Mapping

from etils import epath

from moe_jax import errors, files
from moe_jax.cli import fit_tables, outputs

_KINDS = ("png", "svg")


def draw(folder: str, fitted, more: Mapping[str, Callable]) -> None:
    """Every figure that a fit gives, and `more` by name; residuals.csv beside them, which is shown too."""
    from moe_jax import laws

    explained = laws.explain_residuals(fitted)
    fit_tables.show_explained(explained)
    path = epath.Path(folder)
    with outputs.writing(folder, "--figures"):
        path.mkdir(parents=True, exist_ok=True)
        files.write_atomic(path / "residuals.csv", files.to_csv(explained.to_dict("records")))
    figures = laws.plots.every(fitted) | {"residuals": lambda: laws.plots.residuals(fitted, explained)}
    write(folder, figures | dict(more))


def write(folder: str, figures: Mapping[str, Callable]) -> None:
    """Writes figures by name to a folder; says which of them this law does not have."""
    from moe_jax.laws.plots.figure_style import to_bytes

    path, written, missing = epath.Path(folder), [], {}
    with outputs.writing(folder, "--figures"):
        path.mkdir(parents=True, exist_ok=True)
        for name, make in figures.items():
            try:
                figure = make()
            except errors.UserError as e:
                missing.setdefault(str(e), []).append(name)
                continue
            for kind in _KINDS:
                files.write_atomic(path / f"{name}.{kind}", to_bytes(figure, kind))
            written.append(name)
    fit_tables.say(*(f"no {', '.join(names)}: {reason}" for reason, names in missing.items()))
    print(f"figures: {folder} ({', '.join(written)}; {' and '.join(_KINDS)})")
