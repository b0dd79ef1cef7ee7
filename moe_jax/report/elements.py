"""The elements of a page as values: tables, sentences, figures. templates/elements.html lays them out and escapes them.

Each kind names itself, for the template to tell them apart."""

import base64
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

TABLE_ROWS = 500  # that a page shows of a table, at most; results.csv has all runs


@dataclasses.dataclass(frozen=True)
class Prose:
    """A table cell of sentences, which wrap."""

    kind: ClassVar = "prose"
    text: str


@dataclasses.dataclass(frozen=True)
class Code:
    """A table cell in a monospaced font."""

    kind: ClassVar = "code"
    text: str


@dataclasses.dataclass(frozen=True)
class Badge:
    """A table cell with a word on a coloured badge, and plain text after it. colour: a class of badges in style.css."""

    kind: ClassVar = "badge"
    text: str
    colour: str
    after: str = ""


@dataclasses.dataclass(frozen=True)
class Shaded:
    """A number on a blue background. depth: its opacity, 0 to 1."""

    kind: ClassVar = "shaded"
    text: str
    depth: float


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows of cells. A heading that starts with `>` is a column of numbers, set flush right. tall: scrolls by itself.

    Raises ValueError where a row has not as many cells as there are headings."""

    kind: ClassVar = "table"
    headings: Sequence[str]
    rows: Sequence[Sequence[str | Prose | Code | Badge | Shaded]]
    caption: str | None = None
    tall: bool = False

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.headings):
                raise ValueError(f"a row of {len(row)} cells under {len(self.headings)} headings: {row}")

    @property
    def columns(self) -> list[tuple[str, bool]]:
        """(heading, whether its column holds numbers)."""
        return [(heading.removeprefix(">"), heading.startswith(">")) for heading in self.headings]


def long_table(headings: Sequence[str], rows: Sequence[Sequence[Any]], caption: str) -> Table:
    """A table of as many rows as a page shows; from the 31st on it scrolls."""
    return Table(headings, rows[:TABLE_ROWS], caption, tall=len(rows) > 30)


def not_shown(rows: Sequence[Any]) -> int:
    """How many rows `long_table` leaves out."""
    return max(0, len(rows) - TABLE_ROWS)


@dataclasses.dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain text."""

    kind: ClassVar = "paragraph"
    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    kind: ClassVar = "bullets"
    sentences: Sequence[str]


@dataclasses.dataclass(frozen=True)
class EmbeddedFigure:
    """A figure inside the page. As an image, not as elements: several SVGs in one page would share their ids."""

    kind: ClassVar = "figure"
    svg: bytes
    caption: str
    alt: str

    @property
    def source(self) -> str:
        """The figure as a data URI."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg).decode()
