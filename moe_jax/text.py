"""Numbers and texts as people read them, and checks of those that were read from files."""

import math
import re
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


def one_line(text: str) -> str:
    """Text from a file made safe to print: without line breaks and without escape sequences for the terminal."""
    return _CONTROL.sub(" ", text)


def number(value: Any) -> float | int | None:
    """`value` if it is a finite number, otherwise None: a damaged or foreign file may hold anything."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer too large for a float
        return None


_UNITS = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)([kKMBT]?)")


def amount(text: str) -> float:
    """A number of tokens, parameters or FLOPs as people write it: 96.3k, 1.4B, 2e9, 1,000,000; else NaN."""
    match = _AMOUNT.fullmatch(text.strip().replace(",", "").replace("_", ""))
    if match is None:
        return math.nan
    value = float(match[1]) * _UNITS.get(match[2], 1.0)
    return float(round(value)) if match[2] and abs(value) < 2**53 else value  # 96.3 · 1000 is not quite a whole number


def short(value: float | None, digits: int = 3) -> str:
    """A number with `digits` digits and a unit: 34816 -> 34.8k; a dash for None."""
    if value is None:
        return "–"
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * unit:
            return _digits(value / unit, digits) + letter
    return _digits(value, digits)


def _digits(value: float, digits: int) -> str:
    text = f"{value:.{digits}g}"
    return text if "e" not in text else f"{value:.0f}" if abs(value) >= 1 else text


def fixed(value: float | None, digits: int) -> str:
    """A number with `digits` decimals: (2.7134, 3) -> 2.713; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    """A share in percent: 0.0312 -> 3.1%; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f}%"


def duration(seconds: float | None) -> str:
    """Seconds as 12 s, 3 min, 2 h 05 min, 3 d 04 h; a dash for None."""
    if seconds is None:
        return "–"
    seconds = max(0, round(seconds))
    if seconds < 90:
        return f"{seconds} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"


def count(n: int, noun: str) -> str:
    """A number and its noun: 1 run, 2 runs."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
