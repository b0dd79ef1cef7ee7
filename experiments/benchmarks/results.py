"""Tables of figures: printed, kept as JSON lines, and written as Markdown."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

NOTHING = "–"  # a figure that a row does not have


@dataclasses.dataclass(frozen=True)
class Results:
    """A table of figures."""

    title: str
    formats: dict[str, str]  # how the values under each heading are written, as format() takes it
    rows: list[dict[str, Any]]  # by heading

    def cells(self) -> list[list[str]]:
        """The rows as they are written."""
        return [[_written(row.get(name), spec) for name, spec in self.formats.items()] for row in self.rows]

    def markdown(self) -> str:
        """The title, and the table in Markdown."""
        lines = [self.title, "", _row(self.formats), _row("---" for _ in self.formats), *map(_row, self.cells())]
        return "\n".join(lines) + "\n"

    def rich(self) -> Table:
        """The table for a terminal."""
        table = Table(title=self.title, title_justify="left")
        for name, spec in self.formats.items():
            table.add_column(name, justify="right" if spec else "left")
        for cells in self.cells():
            table.add_row(*cells)
        return table


def add_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--out`, where `show` also writes."""
    parser.add_argument("--out", type=Path, help="a file to which each table is also added, as a line of JSON")


def show(results: Results, out: Path | None) -> None:
    """Prints the table, and adds it to `out`."""
    Console(width=160).print(results.rich())
    if out is not None:
        with out.open("a") as f:
            f.write(json.dumps(dataclasses.asdict(results)) + "\n")


def read(out: Path) -> list[Results]:
    """The tables that `show` has added to the file."""
    return [Results(**json.loads(line)) for line in out.read_text().splitlines()]


def _written(value: Any, spec: str) -> str:
    return NOTHING if value is None else format(value, spec)


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
