"""The tables of `moe-jax fit`: the law and its identifiability, profiles, leverage, residuals, comparisons."""

import numpy as np

from moe_jax import text as text_lib
from moe_jax.cli import tables


def show_law(law, out) -> None:
    """Coefficients with intervals beside the published ones, errors, notes and warnings."""
    where = law.comparable_set or "none"
    printed = law.form.published.get(where, {})
    data, method = law.data, law.method
    rows = []
    for name in law.coefficients:
        value, interval, remark = coefficient_cells(law, name)
        rows.append((name, value, interval, f"{printed[name]:.5g}" if printed else "–", remark))
    N = f"N is {data.columns['N']}; " if "N" in data.columns else ""
    is_loss = law.form.quantity == "loss"
    fitted = text_lib.count(data.n_fit, "run" if is_loss else "cell")
    print(f"{law.name}: {'L' if is_loss else law.form.quantity} = {law.form.formula}    ({N}{fitted} fitted)")
    tables.show(tables.Table(("", ">value", f"{law.level:.0%} interval", f">published: {where}", ""), rows))
    e = law.errors
    line = f"RMSE {e['rmse_fit']:.4f} {'nats' if is_loss else f'of {unit(law.form)}'}"
    if data.n_holdout:
        line += f" · held out ({text_lib.count(data.n_holdout, 'run')}) {e['rmse_holdout']:.4f}"
    if "noise" in e:
        line += f" · noise of replicated cells {e['noise']:.4f}"
    print(line + f" · {method.starts_at_best} of {method.starts} starts at the best optimum")
    if method.interval_method:
        print(f"intervals: bootstrap, {method.interval_method}")
    say(*data.notes, *law.identifiability.warnings)
    print(f"law: {out}")


def unit(form) -> str:
    """What errors of a law are in: nats, or the logarithm of a rate or a batch."""
    return "nats" if form.quantity == "loss" else f"ln {form.quantity}"


def coefficient_cells(law, name: str) -> tuple[str, str, str]:
    """(value, interval, remark) of a coefficient."""
    interval = "fixed" if name in law.fixed_coefficients else "–"
    if name in law.intervals and name not in law.fixed_coefficients:
        interval = "{:.4g} … {:.4g}".format(*law.intervals[name])
    remark = "not identified" if name in law.identifiability.unidentified else ""
    return f"{law.coefficients[name]:.5g}", interval, remark


def show_profile(profile, name: str, accepted: tuple[float, float]) -> None:
    """The range of a coefficient that the data accept; open where it ends at an end of the profile."""
    values, (low, high) = profile["value"], accepted
    low_word = "less than " if low <= values.min() else ""
    high_word = "more than " if high >= values.max() else ""
    print(f"profile of {name}: the data accept {low_word}{low:.4g} to {high_word}{high:.4g} (likelihood, 80%)")


def show_leverage(table, most: int, unit: str) -> None:
    """The `most` runs with the most influence; unit: of the residuals."""
    rows = [
        (
            text_lib.one_line(r["name"]),
            f"{r['shift']:.2f}",
            r["coefficient"] if np.isfinite(r["moved"]) else "–",
            f"{r['moved']:.2f}" if np.isfinite(r["moved"]) else "–",
            f"{r['residual']:+.4f}",
        )
        for _, r in table.head(most).iterrows()
    ]
    print("leverage: what a fit without each run changes: the predictions (in RMSEs), and the coefficient that moves")
    print(f"most (in half-widths of its interval); residual: measured − predicted, {unit}")
    tables.show(tables.Table(("without", ">shift", "coefficient", ">moved", ">residual"), rows))


def show_explained(table, most: int = 8) -> None:
    """The columns that explain most of the residuals."""
    rows = [
        (
            text_lib.one_line(r["column"]),
            r["symbol"] or (f"no; moves with {r['moves_with']}" if r["moves_with"] else "no"),
            str(r["values"]),
            f"{r['spearman']:+.2f}" if np.isfinite(r["spearman"]) else "–",
            text_lib.percent(max(r["share"], 0.0)),
            f"{r['p']:.2g}",
        )
        for _, r in table.head(most).iterrows()
    ]
    print("residuals: the share of their variance that a column explains, and the probability of that by chance")
    tables.show(tables.Table(("column", "in the law", ">values", ">rank correlation", ">share", ">p"), rows))


def show_comparison(table, holdout: str) -> None:
    """Forms on the same runs, the lowest held-out error first."""
    rows = [
        (
            r["law"],
            str(r["coefficients"]),
            *(f"{r[k]:.4f}" for k in ("rmse_holdout", "mean_holdout", "rmse_fit")),
            *(f"{r[k]:.1f}" for k in ("aic", "bic")),
            r["not identified"],
        )
        for _, r in table.iterrows()
    ]
    print(f"laws on the same runs, {holdout} held out:")
    heads = ("law", ">coefficients", ">RMSE held out", ">mean error", ">RMSE fit", ">ΔAIC", ">ΔBIC", "not identified")
    tables.show(tables.Table(heads, rows))
    print("ΔAIC, ΔBIC: on the runs fitted, above the lowest; a difference above 10 is strong evidence for the lowest")


def show_cross_validation(found, unit: str) -> None:
    """The errors of each fold under the fit without it, and how much the coefficients differ between these fits."""
    print(f"cross-validation, {found.rule}: each fold predicted by the fit without it, {unit}")
    rows = [(r["fold"], str(r["runs"]), f"{r['rmse']:.4f}", f"{r['mean']:+.4f}") for _, r in found.folds.iterrows()]
    rows.append(("all", str(found.folds["runs"].sum()), f"{found.rmse:.4f}", f"{found.mean:+.4f}"))
    tables.show(tables.Table(("fold", ">runs", ">RMSE", ">mean error"), rows))
    rows = [
        (r["coefficient"], f"{r['value']:.5g}", f"{r['low']:.4g} … {r['high']:.4g}", f"{r['spread']:.2g}")
        for _, r in found.coefficients.iterrows()
    ]
    tables.show(tables.Table(("", ">all runs", "without a fold", ">standard deviation"), rows))


def say(*sentences: str) -> None:
    """Prints sentences as a list."""
    for sentence in sentences:
        print(f"- {text_lib.one_line(sentence)}")
