"""The fitted law: its formula, its coefficients beside the published ones, its errors, and what the data leave open."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from moe_jax.report.elements import Badge, Prose, Table
from moe_jax.report.formula import greek, markup
from moe_jax.report.law_check import CheckedLaw
from moe_jax.text import count, number

if TYPE_CHECKING:
    from moe_jax.laws import Law


@dataclasses.dataclass(frozen=True)
class LawSection:
    """Everything that the page shows about a law."""

    remarks: Sequence[str]  # warnings
    name: str
    quantity: str  # what the formula gives: loss, learning_rate, …
    formula: Markup
    axes: str  # the column of each symbol
    coefficients: Table
    not_determined: Sequence[str]
    notes: Sequence[str]
    errors: Table
    checklist: Table


def law(checked: CheckedLaw) -> LawSection:
    """The section for a law fitted to these runs, or to others."""
    fitted = checked.law
    return LawSection(
        remarks=checked.remarks,
        name=fitted.name,
        quantity=fitted.form.quantity,
        formula=markup(fitted.form.formula),
        axes="; ".join(f"{symbol} is {column}" for symbol, column in fitted.data.columns.items()) + ".",
        coefficients=_coefficients(fitted),
        not_determined=fitted.identifiability.warnings,
        notes=fitted.data.notes,
        errors=_errors(fitted),
        checklist=_checklist(fitted),
    )


def _coefficients(fitted: "Law") -> Table:
    where, printed = next(iter(fitted.form.published.items()), ("–", {}))
    rows = [
        [
            greek(name),
            f"{value:.4g}",
            _interval(fitted, name),
            _identified(fitted, name),
            f"{printed[name]:.4g}" if name in printed else "–",
        ]
        for name, value in fitted.coefficients.items()
    ]
    headings = ["", ">fitted", f">{fitted.level:.0%} interval", "identified", f">published ({where})"]
    source = f"Published: {fitted.form.source}. Other data and other tokens: compare the shapes, not the digits."
    return Table(headings, rows, caption=source)


def _interval(fitted: "Law", name: str) -> str:
    if name in fitted.fixed_coefficients or name not in fitted.intervals:
        return "–"
    low, high = fitted.intervals[name]
    return f"{low:.4g} … {high:.4g}"


def _identified(fitted: "Law", name: str) -> str | Badge:
    unidentified = name in fitted.identifiability.unidentified
    if name in fitted.fixed_coefficients:
        return "fixed, not fitted" + (" (the data do not determine it)" if unidentified else "")
    if unidentified:
        return Badge("no", "stale")
    return "yes" if name in fitted.intervals else "not tested (no bootstrap)"


def _errors(fitted: "Law") -> Table:
    names = {
        "rmse_fit": f"RMSE of the {count(fitted.data.n_fit, 'run')} fitted", "max_fit": "largest error among them",
        "rmse_holdout": f"RMSE of the {count(fitted.data.n_holdout, 'run')} held out",
        "mean_holdout": "mean of measured − predicted among them",
        "noise": "noise: seeds of one cell (standard deviation)",
    }  # fmt: skip
    known = {text: number(fitted.errors.get(key)) for key, text in names.items()}
    return Table(["", ">nats"], [[text, f"{value:.4f}"] for text, value in known.items() if value is not None])


def _checklist(fitted: "Law") -> Table:
    caption = (
        "What a reader must know of a law before trusting it, after the checklist of Li et al. 2025, (Mis)Fitting."
    )
    return Table(["", "this fit"], [[item, Prose(said)] for item, said in fitted.checklist.items()], caption=caption)
