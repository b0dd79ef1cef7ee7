"""The tables of `moe-jax isoflop`: the minima of budgets and their power laws, or the lowest points of surfaces."""

import numpy as np

from moe_jax import text as text_lib
from moe_jax.cli import tables
from moe_jax.cli.fit_tables import say

_MOST = 40  # budgets that are shown; an envelope has more


def show(found, out) -> None:
    """The minima of parabolas and their power laws, or the lowest points of surfaces."""
    of = ", ".join(f"{symbol} is {column}" for symbol, column in found.columns.items())
    print(f"isoflop, {found.method}: {text_lib.count(found.n_fit, 'run')} fitted ({of})")
    if found.minima is not None:
        _show_minima(found.minima)
    else:
        _show_surfaces(found)
    say(*found.notes, *(found.minima.warnings if found.minima is not None else ()))
    print(f"isoflop: {out}")


def _show_minima(through) -> None:
    rows = [
        (
            f"{r['flops']:.3g}",
            str(r["runs"]),
            _size(r) if r["usable"] else "–",
            text_lib.short(r["tokens"]) if r["usable"] else "–",
            f"{r['loss']:.4f}" if r["usable"] else "–",
            r["why"],
        )
        for _, r in through.table.iterrows()
    ]
    step = -(-len(rows) // _MOST)
    tables.show(tables.Table((">FLOPs", ">runs", ">N*", ">D*", ">loss*", ""), rows[::step]))
    if step > 1:
        print(f"(every {step}th of {len(rows)} budgets)")
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


def _size(row) -> str:
    """N* with its interval."""
    if not np.isfinite(row["N_low"]):
        return text_lib.short(row["N"])
    return f"{text_lib.short(row['N'])} ({text_lib.short(row['N_low'])}–{text_lib.short(row['N_high'])})"


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
