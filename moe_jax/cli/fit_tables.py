"""The tables of `moe-jax fit`: the law and its identifiability, profiles, leverage, comparisons, iso-FLOP fits."""

import numpy as np

from moe_jax import text as text_lib
from moe_jax.cli import tables


def show_law(law, out) -> None:
    """Coefficients with intervals beside the published ones, errors, notes and warnings."""
    where, printed = next(iter(law.form.published.items()), ("none", {}))
    data, method = law.data, law.method
    rows = []
    for name, value in law.coefficients.items():
        interval = "fixed" if name in law.fixed_coefficients else "–"
        if name in law.intervals and name not in law.fixed_coefficients:
            interval = "{:.4g} … {:.4g}".format(*law.intervals[name])
        remark = "not identified" if name in law.identifiability.unidentified else ""
        rows.append((name, f"{value:.5g}", interval, f"{printed[name]:.5g}" if printed else "–", remark))
    N = f"N is {data.columns['N']}; " if "N" in data.columns else ""
    print(f"{law.name}: L = {law.form.formula}    ({N}{text_lib.count(data.n_fit, 'run')} fitted)")
    tables.show(tables.Table(("", ">value", f"{law.level:.0%} interval", f">published: {where}", ""), rows))
    e = law.errors
    line = f"RMSE {e['rmse_fit']:.4f} nats"
    if data.n_holdout:
        line += f" · held out ({text_lib.count(data.n_holdout, 'run')}) {e['rmse_holdout']:.4f}"
    if "noise" in e:
        line += f" · noise of replicated cells {e['noise']:.4f}"
    print(line + f" · {method.starts_at_best} of {method.starts} starts at the best optimum")
    if method.interval_method:
        print(f"intervals: bootstrap, {method.interval_method}")
    say(*data.notes, *law.identifiability.warnings)
    print(f"law: {out}")


def show_profile(profile, name: str, accepted: tuple[float, float]) -> None:
    """The range of a coefficient that the data accept; open where it ends at an end of the profile."""
    values, (low, high) = profile["value"], accepted
    low_word = "less than " if low <= values.min() else ""
    high_word = "more than " if high >= values.max() else ""
    print(f"profile of {name}: the data accept {low_word}{low:.4g} to {high_word}{high:.4g} (likelihood, 80%)")


def show_leverage(table, most: int) -> None:
    """The `most` runs with the most influence."""
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
    print("most (in half-widths of its interval); residual: measured − predicted, nats")
    tables.show(tables.Table(("without", ">shift", "coefficient", ">moved", ">residual"), rows))


def show_comparison(table, holdout: str) -> None:
    """Forms on the same runs, the lowest held-out error first."""
    rows = [
        (
            r["law"],
            str(r["coefficients"]),
            *(f"{r[k]:.4f}" for k in ("rmse_holdout", "mean_holdout", "rmse_fit")),
            r["not identified"],
        )
        for _, r in table.iterrows()
    ]
    print(f"laws on the same runs, {holdout} held out:")
    heads = ("law", ">coefficients", ">RMSE held out", ">mean error", ">RMSE fit", "not identified")
    tables.show(tables.Table(heads, rows))


def show_isoflop(found, out) -> None:
    """The minima of parabolas and their power laws, or the lowest points of surfaces."""
    of = ", ".join(f"{symbol} is {column}" for symbol, column in found.columns.items())
    print(f"{found.kind}: {text_lib.count(found.n_fit, 'run')} fitted ({of})")
    if found.parabolas is not None:
        _show_parabolas(found.parabolas)
    else:
        _show_surfaces(found)
    say(*found.notes)
    print(f"isoflop: {out}")


def _show_parabolas(through) -> None:
    rows = [
        (
            f"{r['flops']:.3g}",
            str(r["runs"]),
            text_lib.short(r["N"]) if r["usable"] else "–",
            text_lib.short(r["tokens"]) if r["usable"] else "–",
            f"{r['loss']:.4f}" if r["usable"] else "–",
            "" if r["usable"] else "opens downward" if not r["curvature"] > 0 else "its minimum is not inside the runs",
        )
        for _, r in through.table.iterrows()
    ]
    tables.show(tables.Table((">FLOPs", ">runs", ">N*", ">D*", ">loss*", ""), rows))
    if not np.isfinite(through.exponent):
        print("fewer than two budgets have a minimum: there is no power law")
        return
    for name, i in (("N*", 0), ("D*", 1)):
        exponent, intercept = through.power_laws[i]
        interval = ""
        if len(through.samples):
            tails = [(1 - through.level) / 2, (1 + through.level) / 2]
            low, high = np.quantile(through.samples[:, i, 0], tails)
            interval = f", {through.level:.0%} interval {low:.3f} … {high:.3f}"
        print(f"{name} = {np.exp(intercept):.4g} · C^{exponent:.4f}    (exponent {exponent:.3f}{interval})")


def _show_surfaces(found) -> None:
    rows = []
    for C, s in found.surfaces.items():
        best = s.best(found.level)

        def cell(key, write, best=best):
            value, low, high = best[key]
            text = write(value) + (f" ({write(low)}–{write(high)})" if np.isfinite(low) else "")
            return text if key not in best["at_edge"] else f"{text}, end of the data"

        rows.append(
            (
                f"{C:.3g}",
                str(s.runs),
                " ".join(map(str, s.degrees)),
                f"{s.rmse_fit:.4f}",
                f"{s.rmse_cv:.4f}",
                f"{s.correlation_cv:.4f}",
                cell("N", text_lib.short),
                cell("S", "{:.3g}".format),
                cell("loss", "{:.4f}".format),
            )
        )
    heads = (">FLOPs", ">runs", "degrees", ">RMSE fit", ">RMSE left out", ">correlation", "N*", "S*", "loss*")
    tables.show(tables.Table(heads, rows))


def say(*sentences: str) -> None:
    """Prints sentences as a list."""
    for sentence in sentences:
        print(f"- {text_lib.one_line(sentence)}")
