"""Tables on a terminal (rich), and plain aligned lines in a log file; numbers as people read them."""

import dataclasses
import math
import re
import sys
from collections.abc import Sequence
from typing import Any

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclasses.dataclass(frozen=True)
class Table:
    """Texts in rows. A heading that starts with `>` is a column of numbers, set flush right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    styles: Sequence[str] = ()  # of each row, for a terminal: rich's names
    spare: Sequence[str] = ()  # headings to do without on a narrow terminal, the most dispensable first

    def without(self, heading: str) -> "Table":
        """The table less one column."""
        kept = [i for i, h in enumerate(self.headings) if h != heading]
        rows = [[row[i] for i in kept] for row in self.rows]
        return dataclasses.replace(self, headings=[self.headings[i] for i in kept], rows=rows)

    def fitted(self, width: int) -> "Table":
        """The table without as many spare columns as it takes to be at most so wide, if that is possible."""
        table, spare = self, list(self.spare)
        while spare and max(map(len, plain_lines(table))) > width:
            table = table.without(spare.pop(0))
        return table


def show(table: Table) -> None:
    """Prints a table to stdout."""
    if sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(rich_table(table.fitted(console.width)))
    else:
        print("\n".join(plain_lines(table)))


def rich_table(table: Table) -> Any:
    """The rich.table.Table."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in table.headings:
        right = heading.startswith(">")
        rich.add_column(Text(heading.removeprefix(">")), justify="right" if right else "left", no_wrap=True)
    for i, row in enumerate(table.rows):
        # Text, not str: what stands in a file is no rich markup.
        rich.add_row(*(Text(one_line(cell)) for cell in row), style=table.styles[i] if table.styles else None)
    return rich


def plain_lines(table: Table) -> list[str]:
    """The table as lines without colours, aligned by spaces, never cut."""
    right = [heading.startswith(">") for heading in table.headings]
    cells = [[heading.removeprefix(">") for heading in table.headings]]
    cells += [[one_line(cell) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        parts = zip(row, widths, right, strict=True)
        lines.append("  ".join(cell.rjust(width) if r else cell.ljust(width) for cell, width, r in parts).rstrip())
    return lines


def one_line(text: str) -> str:
    """Text from a file, safe to print: no line breaks, no escape sequences that would drive the terminal."""
    return _CONTROL.sub(" ", text)


def number(value: Any) -> float | int | None:
    """`value` where it is a finite number, else None: what a damaged or foreign file holds is not believed."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer that no float can hold
        return None


def short(value: float | None, digits: int = 3) -> str:
    """34816 -> 34.8k; a dash for None."""
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
    """A number with so many decimals; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}%"


def duration(seconds: float | None) -> str:
    """12 s, 3 min, 2 h 05 min, 3 d 04 h; a dash for None."""
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
    """1 run, 2 runs."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"
