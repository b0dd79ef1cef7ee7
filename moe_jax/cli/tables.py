"""Prints tables: with rich on a terminal, as plain aligned lines elsewhere."""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from moe_jax.text import one_line


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of texts. A heading that starts with `>` is a column of numbers, which is right-aligned."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    styles: Sequence[str] = ()  # rich's style of each row, for a terminal
    spare: Sequence[str] = ()  # headings to drop on a narrow terminal, in this order

    def without(self, heading: str) -> "Table":
        """The table without one column."""
        kept = [i for i, h in enumerate(self.headings) if h != heading]
        rows = [[row[i] for i in kept] for row in self.rows]
        return dataclasses.replace(self, headings=[self.headings[i] for i in kept], rows=rows)

    def fitted(self, width: int) -> "Table":
        """The table without as many spare columns as must go for it to be at most `width` characters wide."""
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
    """The table as a rich.table.Table."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    rich = RichTable(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in table.headings:
        right = heading.startswith(">")
        rich.add_column(Text(heading.removeprefix(">")), justify="right" if right else "left", no_wrap=True)
    for i, row in enumerate(table.rows):
        # Text, not str: texts from files must not be read as rich markup.
        rich.add_row(*(Text(one_line(cell)) for cell in row), style=table.styles[i] if table.styles else None)
    return rich


def plain_lines(table: Table) -> list[str]:
    """The table as lines without colours, aligned by spaces, never truncated."""
    right = [heading.startswith(">") for heading in table.headings]
    cells = [[heading.removeprefix(">") for heading in table.headings]]
    cells += [[one_line(cell) for cell in row] for row in table.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for row in cells:
        parts = zip(row, widths, right, strict=True)
        lines.append("  ".join(cell.rjust(width) if r else cell.ljust(width) for cell, width, r in parts).rstrip())
    return lines
