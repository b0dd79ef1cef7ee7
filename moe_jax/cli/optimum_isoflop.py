"""`moe-jax optimum` of iso-FLOP fits: the power laws through minima, or the best N and S of a surface."""

from collections.abc import Sequence

import numpy as np

from moe_jax import text
from moe_jax.cli import tables
from moe_jax.errors import UserError


def optima(found, flops: Sequence[float]) -> list[dict[str, object]]:
    """Rows of optimum.csv for each budget of FLOPs, with intervals.

    Minima give one row a budget, N and tokens. A surface gives its lowest point, then the best N of each S."""
    if found.minima is not None:
        return _of_minima(found.minima, flops)
    return [row for C in flops for row in _of_surface(*found.surface(C), found.level)]


def _of_minima(through, flops: Sequence[float]) -> list[dict[str, object]]:
    if not np.isfinite(through.exponent):
        raise UserError(
            "fewer than two budgets of this fit have a minimum inside their runs: there is no power law to follow"
        )
    usable = through.table.loc[through.table["usable"], "flops"]
    at = through.optimum(np.array(flops))
    rows = []
    for i, C in enumerate(flops):
        row: dict[str, object] = {"flops": C}
        for name in ("N", "tokens"):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), (float(v[i]) for v in at[name]), strict=True))
        row["outside"] = "" if usable.min() * 0.99 <= C <= usable.max() * 1.01 else "flops"
        rows.append(row)
    return rows


def _of_surface(C: float, surface, level: float) -> list[dict[str, object]]:
    best = surface.best(level)
    lowest: dict[str, object] = {"flops": C, "what": "lowest"}
    for key in ("N", "S", "loss"):
        lowest |= dict(zip((key, f"{key}_low", f"{key}_high"), best[key], strict=True))
    rows = [lowest | {"outside": " ".join(best["at_edge"])}]
    for S in surface.sparsities:
        N = float(surface.best_size(S)[0])
        loss = float(surface.loss(N, S)) if np.isfinite(N) else float("nan")
        nothing = dict.fromkeys(("N_low", "N_high", "S_low", "S_high", "loss_low", "loss_high"), float("nan"))
        rows.append(
            {"flops": C, "what": "at this S", "N": N, "S": S, "loss": loss, **nothing}
            | {"outside": "" if np.isfinite(N) else "N"}
        )
    return [{k: row[k] for k in rows[0]} for row in rows]


def show(found, rows: Sequence[dict]) -> None:
    """Prints the rows as a table."""
    of = ", ".join(f"{symbol} is {column}" for symbol, column in found.columns.items())
    print(f"{found.kind} ({of})")
    if found.minima is not None:
        lines = [
            (
                f"{r['flops']:.3g}",
                _with_interval(r, "N", text.short),
                _with_interval(r, "tokens", text.short),
                "outside the budgets fitted" if r["outside"] else "",
            )
            for r in rows
        ]
        tables.show(tables.Table((">FLOPs", ">N*", ">D*", "remark"), lines))
        return
    lines = [
        (
            f"{r['flops']:.3g}",
            r["what"],
            _with_interval(r, "S", "{:.3g}".format),
            _with_interval(r, "N", text.short),
            _with_interval(r, "loss", "{:.4f}".format),
            f"{' and '.join(r['outside'].split())} at the end of the data: no optimum" if r["outside"] else "",
        )
        for r in rows
    ]
    tables.show(tables.Table((">FLOPs", "", ">S", ">N*", ">loss*", "remark"), lines))


def _with_interval(row: dict, key: str, write) -> str:
    if not np.isfinite(row[key]):
        return "–"
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return write(row[key]) + (f" ({write(low)}–{write(high)})" if np.isfinite(low) else "")
