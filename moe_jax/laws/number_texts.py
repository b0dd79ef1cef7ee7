"""Numbers that people and spreadsheets write as texts: 1.4B, 1,400,000,000, 12%.

The rule, which docs/laws_tables.md states: spaces round a number are ignored; K, M, B and T after it, in either case,
are 1e3, 1e6, 1e9 and 1e12; % is a hundredth; commas between groups of three digits separate thousands where a number of
the column has two of them, or one before a decimal point. A lone 1,400 may be 1.4 or 1400, and is no number."""

import re
from typing import Any

import numpy as np
import pandas as pd

_POWERS = {"": 0, "k": 3, "m": 6, "b": 9, "t": 12, "%": -2}  # of ten
_PLAIN = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,4})?) ?([kmbt%]?)", re.IGNORECASE | re.ASCII)
_GROUPED = re.compile(r"([+-]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?) ?([kmbt%]?)", re.IGNORECASE | re.ASCII)
_ONE_COMMA = re.compile(r"[+-]?\d+,\d{3} ?[kmbt%]?", re.IGNORECASE | re.ASCII)


def of_column(values: pd.Series) -> np.ndarray:
    """A column as float64 (rows,); NaN where a cell is empty or no number. Dates are no numbers."""
    if pd.api.types.is_datetime64_any_dtype(values.dtype) or pd.api.types.is_timedelta64_dtype(values.dtype):
        return np.full(len(values), np.nan)
    plain = pd.to_numeric(values, errors="coerce")
    read = np.array(plain.to_numpy(np.float64, na_value=np.nan))
    open_ = np.flatnonzero(np.isnan(read) & ~values.isna().to_numpy())
    cells = {i: values.iloc[i] for i in open_}
    grouped = any(_is_surely_grouped(cell) for cell in cells.values())
    for i, cell in cells.items():
        read[i] = _of_cell(cell, grouped)
    return read


def is_empty(values: pd.Series) -> np.ndarray:
    """(rows,) True where a cell holds nothing, NaN or spaces only."""
    empty = values.isna().to_numpy(bool)
    if pd.api.types.is_numeric_dtype(values.dtype):
        return empty
    return empty | np.array([isinstance(cell, str) and not cell.strip() for cell in values], bool)


def rule_for(cell: Any) -> str:
    """What to do about a cell that is no number, as the end of a sentence."""
    if isinstance(cell, str) and _ONE_COMMA.fullmatch(cell.strip()):
        return "with one comma it may be a decimal or thousands; write it without"
    return "a law needs numbers, as 1.4e9, 1.4B, 1,400,000,000 or 12%"


def _of_cell(cell: Any, grouped: bool) -> float:
    if not isinstance(cell, str):
        try:
            return float(cell)  # a decimal.Decimal, an integer above 2^64
        except (TypeError, ValueError, OverflowError):
            return np.nan
    text = cell.strip()
    if found := _PLAIN.fullmatch(text):
        return _scaled(found[1], found[2])
    if grouped and (found := _GROUPED.fullmatch(text)):
        return _scaled(found[1].replace(",", ""), found[2])
    return np.nan


def _scaled(digits: str, unit: str) -> float:
    """The float nearest to what is written, so that 8.2B is 8200M: 8.2 · 1e9 is another one."""
    mantissa, _, exponent = digits.lower().partition("e")
    return float(f"{mantissa}e{int(exponent or 0) + _POWERS[unit.lower()]}")


def _is_surely_grouped(cell: Any) -> bool:
    found = _GROUPED.fullmatch(cell.strip()) if isinstance(cell, str) else None
    return bool(found) and (found[1].count(",") > 1 or "." in found[1])
