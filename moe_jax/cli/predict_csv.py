"""`moe-jax predict --csv`: the loss at every row of a table of N, D, G, written beside it."""

import os

import numpy as np
import pandas as pd

from moe_jax import text
from moe_jax.cli import input_tables, tables
from moe_jax.errors import UserError

_MOST_SHOWN = 20
ADDED = ("predicted_loss", "low", "high", "law_low", "law_high", "outside")


def beside(path: str) -> str:
    """Where the predictions of a table go: cells.csv -> cells.prediction.csv."""
    stem, ending = os.path.splitext(path)
    return f"{stem}.prediction{ending}"


def predicted(law, path: str, counts: dict[str, str], level: float | None) -> pd.DataFrame:
    """The table with the columns ADDED. Raises UserError for a table without the law's columns, or with other than
    numbers in them.

    A column is found by its symbol (N), by its name in the fit, or by its name in results.csv."""
    from moe_jax import laws

    table = input_tables.read(path, "--csv")
    if taken := [c for c in ADDED if c in table.columns]:
        raise UserError(f"--csv {path}: has a column {taken[0]!r} already; name it otherwise")
    axes = {}
    for symbol, own in law.form.columns.items():
        source = law.data.columns.get(symbol, own)
        names = [symbol, source]
        if not {symbol, source} & set(table.columns):
            names.append(laws.columns_meant(law, counts)[symbol])
        column = next((c for c in names if c in table.columns), None)
        if column is None:
            listed = ", ".join(dict.fromkeys(names))
            raise UserError(f"--csv {path}: has no column for {symbol} of {law.name} ({listed}): {_listed(table)}")
        axes[symbol] = _numbers(table, column, symbol in law.form.shares, path)
    value, low, high = law.predict(axes, level, residual=bool(law.samples))
    _, law_low, law_high = law.predict(axes, level)
    beyond = law.outside(axes) | laws.choices.other_experts(law, table)
    outside = [" ".join(c for c, mask in beyond.items() if mask[i]) for i in range(len(table))]
    return table.assign(**dict(zip(ADDED, (value, low, high, law_low, law_high, outside), strict=True)))


def _numbers(table: pd.DataFrame, column: str, share: bool, path: str) -> np.ndarray:
    values = pd.to_numeric(table[column], errors="coerce").to_numpy(float)
    good = (values >= 0) & (values < 1) if share else (values > 0) & np.isfinite(values)
    if not good.all():
        i = int(np.flatnonzero(~good)[0])
        rule = "a share in [0, 1)" if share else "a number above 0"
        raise UserError(f"--csv {path}: {column} is {table[column].iloc[i]} in row {i + 1}, must be {rule}")
    return values


def _listed(table: pd.DataFrame) -> str:
    return f"its columns are {', '.join(map(str, table.columns))}"


def show(law, table: pd.DataFrame, level: float) -> None:
    """Prints the first rows, and how far a column of measured losses is from the predictions."""
    given = [c for c in table.columns if c not in ADDED]
    heads = [*(f">{c}" for c in given), ">loss", f">{level:.0%} of such runs", "outside the fit"]
    lines = []
    for _, r in table.head(_MOST_SHOWN).iterrows():
        cells = [text.short(r[c]) if isinstance(r[c], int | float | np.number) else str(r[c]) for c in given]
        interval = f"{r['low']:.3f} … {r['high']:.3f}" if law.samples else "–"
        lines.append((*cells, f"{r['predicted_loss']:.4f}", interval, r["outside"]))
    print(f"{law.name}: L = {law.form.formula}")
    tables.show(tables.Table(heads, lines))
    if len(table) > _MOST_SHOWN:
        print(f"- {text.count(len(table) - _MOST_SHOWN, 'more row')} in the file")
    if law.data.loss in table.columns:
        off = pd.to_numeric(table[law.data.loss], errors="coerce") - table["predicted_loss"]
        if off.notna().any():
            rmse, mean = np.sqrt((off**2).mean()), off.mean()
            known = text.count(int(off.notna().sum()), "row")
            print(f"- {law.data.loss} of {known}: RMSE {rmse:.4f} nats, mean error {mean:+.4f} (measured − predicted)")
